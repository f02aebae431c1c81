module github.com/taskbridge/taskbridge/adapters/temporal

go 1.26.0
