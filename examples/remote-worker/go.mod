module github.com/taskbridge/taskbridge/examples/remote-worker

go 1.26.0

require github.com/taskbridge/taskbridge/core v0.0.0

replace github.com/taskbridge/taskbridge/core => ../../core
