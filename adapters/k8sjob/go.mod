module github.com/taskbridge/taskbridge/adapters/k8sjob

go 1.26.0
