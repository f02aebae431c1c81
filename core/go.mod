module github.com/taskbridge/taskbridge/core

go 1.26.0
