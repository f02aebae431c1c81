module github.com/taskbridge/taskbridge/adapters/asynq

go 1.26.0
