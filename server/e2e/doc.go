// Package e2e tests the taskbridge command as its users meet it: a process of
// its own, over HTTP, killed and stopped by signals. Its tests need Linux, since
// they look for leftover processes in /proc.
package e2e
