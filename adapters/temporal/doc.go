// Package temporaladapter runs tasks as Temporal workflows or standalone activities.
//
// It is not there yet: the package is empty, and its module is only a place in
// the layout. README.md says what it is going to hold. Until then
// github.com/taskbridge/taskbridge/adapters/process runs tasks as local
// commands, and a host can implement taskbridge.TaskExecutor itself.
package temporaladapter
