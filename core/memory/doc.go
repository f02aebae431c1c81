// Package memory keeps tasks, events and leases in this process's memory: for
// tests, demonstrations and servers whose tasks need not outlive them.
//
// [Store] holds rows and events together and writes both in one atomic step;
// [Tasks] and [Events] are the two halves by themselves, for whoever wants to
// see how the services behave over separate stores. "Durable" means here: until
// the process ends.
//
// All methods are safe for concurrent use. Watchers are called by the goroutine
// that made the change, after it let go of every lock of the store. A stop
// function waits for a call of its wake that is under way, so it must not be
// called from within wake, nor while holding a lock that wake takes.
package memory
