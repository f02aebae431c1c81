package main

import (
	"strings"
	"testing"
)

func TestTheCommandLine(t *testing.T) {
	for _, test := range []struct {
		args, environ  string
		status         int
		stdout, stderr string // a part of each; "" for an empty one
	}{
		{"", "", exitUsage, "", "Usage:"},
		{"help", "", exitOK, "taskbridge serve", ""},
		{"--help", "", exitOK, "taskbridge serve", ""},
		{"version", "", exitOK, "taskbridge ", ""},
		{"--version", "", exitOK, "go1.", ""},
		{"server", "", exitUsage, "", `unknown command "server"`},
		{"serve --help", "", exitOK, "--drain-timeout DURATION", ""},
		{"serve -h", "", exitOK, "TASKBRIDGE_LOG_LEVEL", ""},
		{"serve --nothing", "", exitUsage, "", "--nothing"},
		{"serve --listen :8080", "", exitUsage, "", "every address of the machine: without access control"},
		{"serve", "TASKBRIDGE_LISTEN=0.0.0.0:80", exitUsage, "", "listen (from TASKBRIDGE_LISTEN) must be a loopback address, which 0.0.0.0 is not"},
		{"keygen --subject ci --scope tasks:read --scope tasks:write --id nightly", "", exitOK, "scopes: ['tasks:read', 'tasks:write']", "cannot be shown again"},
		{"keygen --help", "", exitOK, "--subject", ""},
		{"keygen --scope tasks:read", "", exitUsage, "", "subject"},
		{"keygen --subject ci --scope everything", "", exitUsage, "", "everything"},
		{"keygen --subject ci --scope tasks:read --expires-in soon", "", exitUsage, "", "soon"},
		{"keygen --subject ci --scope tasks:read now", "", exitUsage, "", "now"},
		{"health --help", "", exitOK, "--listen", ""},
		{"serve --data /dev/null --listen 127.0.0.1:0", "", exitFailed, "", "/dev/null"},
	} {
		var stdout, stderr strings.Builder
		status := run(strings.Fields(test.args), strings.Fields(test.environ), &stdout, &stderr)
		if status != test.status {
			t.Errorf("%q: status %d, want %d", test.args, status, test.status)
		}
		for _, out := range []struct{ name, got, want string }{{"stdout", stdout.String(), test.stdout}, {"stderr", stderr.String(), test.stderr}} {
			if !strings.Contains(out.got, out.want) || out.want == "" && out.got != "" {
				t.Errorf("%q: %s %q, want %q", test.args, out.name, out.got, out.want)
			}
		}
	}
}
