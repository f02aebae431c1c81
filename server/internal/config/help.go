package config

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// flagSet has a flag for each setting. They are all texts here: what is wrong
// with a value is said by the setting's own parser, whichever way it came.
func flagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.SortFlags = false
	flags.String(configFlag, "", "YAML file with settings")
	flags.StringArray(taskFlag, nil, "a task type and the command that does its work; may be repeated")
	for _, g := range groups {
		for _, s := range g.settings {
			flags.String(s.flag, "", s.usage)
			if s.hint == hintBool {
				flags.Lookup(s.flag).NoOptDefVal = "true"
			}
		}
	}
	return flags
}

const helpHead = `Run the server.

Usage:
  taskbridge serve [flags]

  taskbridge serve
  taskbridge serve --task 'thumbnails=./thumbnails.sh --size 200'
  taskbridge serve --config taskbridge.yaml --data /var/lib/taskbridge
`

const helpTail = `
Every flag is an environment variable too: --log-level is TASKBRIDGE_LOG_LEVEL
(in TASKBRIDGE_TASK, one TYPE=COMMAND a line), and a key of the YAML file: the one
in brackets, or else the flag's name. Flags win over the environment, that over
the file. In the file, tasks have more to set:

  tasks:
    thumbnails:
      command: ./thumbnails.sh --size 200   # or a list of words
      dir: /srv/images                      # working directory
      inheritEnv: basic                     # or all, or none
      env: {LANG: C.UTF-8}                  # added to what is inherited
      plainLines: true                      # ordinary output becomes messages
      timeout: 1h

and so have the runtimes that tasks are handed to:

  executors:
    images:
      kind: webhook
      url: https://images.internal/tasks
      secretFile: /run/secrets/images
  tasks:
    resize:
      executor: images
      deadline: 2h                          # after which a task without an end fails
`

// Help writes what "serve --help" shows.
func Help(w io.Writer) error {
	var b strings.Builder
	b.WriteString(helpHead)
	defaults := Default()
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		switch g.title {
		case "Server":
			line(&b, configFlag, "FILE", "YAML file with settings", "", "")
		case "Tasks":
			line(&b, taskFlag, "'TYPE=COMMAND ARG…'", "a task type and the command that does its work; split by a shell's quoting rules, nothing expanded; may be repeated", tasksKey, "")
		}
		for _, s := range g.settings {
			key := s.key
			if key == s.flag {
				key = ""
			}
			line(&b, s.flag, s.hint, s.usage, key, s.parse.show(defaults))
		}
	}
	b.WriteString(helpTail)
	_, err := io.WriteString(w, b.String())
	return err
}

// line writes a flag, its meaning at a fixed column, and what it is by default.
func line(b *strings.Builder, flag, hint, usage, key, def string) {
	const column = 40
	left := fmt.Sprintf("  --%s %s", flag, hint)
	if hint == hintBool {
		left = fmt.Sprintf("  --%s[=%s]", flag, hint)
	}
	if len([]rune(left)) >= column {
		left += "\n" + strings.Repeat(" ", column)
	} else {
		left += strings.Repeat(" ", column-len([]rune(left)))
	}
	if key != "" {
		usage += " [" + key + "]"
	}
	if def != "" {
		usage += " (default " + def + ")"
	}
	// Wrapped at 80 columns, or two words more where the left side is long.
	const width = 60
	for text := usage; ; {
		if len([]rune(text)) <= width {
			b.WriteString(left + text + "\n")
			return
		}
		cut := strings.LastIndex(string([]rune(text)[:width]), " ")
		b.WriteString(left + text[:cut] + "\n")
		left, text = strings.Repeat(" ", column), text[cut+1:]
	}
}
