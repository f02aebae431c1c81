module github.com/taskbridge/taskbridge/examples/embedding-process

go 1.26.0

require (
	github.com/taskbridge/taskbridge/adapters/process v0.0.0
	github.com/taskbridge/taskbridge/core v0.0.0
)

replace (
	github.com/taskbridge/taskbridge/adapters/process => ../../adapters/process
	github.com/taskbridge/taskbridge/core => ../../core
)
