// Command release publishes the repository's modules.
//
//	go run . -version v0.1.0 -proxy DIR          into a folder that serves as a GOPROXY
//	go run . -version v0.1.0 -proxy DIR -tag     and as tags of this repository
//
// The first is also what the consumer rehearsal does before it builds the
// examples from the outside (rehearsal_test.go, make test-rehearsal). Nothing is
// pushed: the last line says what to push.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/taskbridge/taskbridge/release/publish"
	"github.com/taskbridge/taskbridge/release/workspace"
)

func main() {
	version := flag.String("version", "", "version of all modules, v1.2.3")
	proxy := flag.String("proxy", "", "folder that receives the modules")
	tag := flag.Bool("tag", false, "make the release commit and its tags too")
	flag.Parse()
	if err := run(*version, *proxy, *tag); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(version, proxy string, tag bool) (err error) {
	if version == "" || proxy == "" || flag.NArg() > 0 {
		return errors.New("-version and -proxy are needed, and nothing else")
	}
	w, err := workspace.Load(".")
	if err != nil {
		return err
	}
	stage, err := os.MkdirTemp("", "taskbridge-stage-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	release, err := publish.Publish(w, version, stage, proxy, time.Now())
	if err != nil {
		return err
	}
	for _, m := range w.Published() {
		fmt.Println(m.Path, version, release.Sums[m.Path].Zip)
	}
	if !tag {
		return nil
	}
	tags, err := release.Tag(w)
	if err != nil {
		return err
	}
	fmt.Println("tagged; to publish: git push origin", strings.Join(tags, " "))
	return nil
}
