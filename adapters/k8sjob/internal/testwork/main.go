// Command testwork is the work in the pods of the tests. Its arguments are steps, as
// in "progress=100,10ms" or "exit=3", which are taken one after the other; the
// program ends with status 0 after the last.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		step, ok := steps[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "testwork: no step %q\n", name)
			os.Exit(64)
		}
		if err := step(value); err != nil {
			fmt.Fprintf(os.Stderr, "testwork: %s: %v\n", arg, err)
			os.Exit(70)
		}
	}
}

// steps are what there is to do, by name.
var steps = map[string]func(value string) error{
	// What is said on standard output or error.
	"print":    func(text string) error { return say(text) },
	"stderr":   func(text string) error { _, err := fmt.Fprintln(os.Stderr, text); return err },
	"raw":      func(text string) error { _, err := fmt.Print(text); return err }, // without a line end
	"message":  func(text string) error { return report(map[string]any{"message": text}) },
	"result":   func(value string) error { return say(`::taskbridge {"result":` + value + `}`) },
	"fail":     failLine,
	"progress": progressLines,
	"plain":    plainLines,
	"bytes":    manyBytes,
	"long":     longLine,

	// What was handed over.
	"input":       resultOfInput,
	"env":         func(name string) error { return report(map[string]any{"message": name + "=" + os.Getenv(name)}) },
	"termination": func(text string) error { return os.WriteFile("/dev/termination-log", []byte(text), 0o600) },

	// What takes its time. Without one of the first two SIGTERM ends the program.
	"trap":   trap,
	"ignore": ignore,
	"sleep":  sleep,
	"block":  block,
	"get":    get,

	// Ends.
	"exit":      exit,
	"fail-once": failOnce,
	"oom":       outOfMemory,

	// The worker API instead of lines.
	"worker-api": workerAPI,
}
