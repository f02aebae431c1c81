module github.com/taskbridge/taskbridge/examples/embedding

go 1.26.0

require (
	github.com/taskbridge/taskbridge/core v0.0.0
	github.com/taskbridge/taskbridge/fakes v0.0.0
)

replace (
	github.com/taskbridge/taskbridge/core => ../../core
	github.com/taskbridge/taskbridge/fakes => ../../fakes
)
