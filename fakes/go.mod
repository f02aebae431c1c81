module github.com/taskbridge/taskbridge/fakes

go 1.26.0

require github.com/taskbridge/taskbridge/core v0.0.0

require go.uber.org/goleak v1.3.0

require github.com/stretchr/testify v1.12.1 // indirect

replace github.com/taskbridge/taskbridge/core => ../core
