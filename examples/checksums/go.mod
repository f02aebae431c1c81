module github.com/taskbridge/taskbridge/examples/checksums

go 1.26.0
