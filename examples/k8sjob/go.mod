module github.com/taskbridge/taskbridge/examples/k8sjob

go 1.26.0
