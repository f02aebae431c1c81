package config

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTaskTypesGoToTheRuntimesOfTheFile(t *testing.T) {
	secret := writeFile(t, strings.Repeat("s", 32)+"\n")
	c := load(t, []string{"--config", writeFile(t, `
executors:
  images: &images {kind: webhook, url: "https://images.internal/tasks", secretFile: `+secret+`}
  plain: {<<: *images, url: "http://127.0.0.1:9000"}
tasks:
  resize: {executor: images, deadline: 2h}
  blur: {executor: plain}
  hash: {command: sha256sum}
`)}, nil)
	wantExecutors := map[string]Executor{
		"images": {KindWebhook, &Webhook{URL: "https://images.internal/tasks", Secret: strings.Repeat("s", 32), SecretFile: secret}, 3},
		"plain":  {KindWebhook, &Webhook{URL: "http://127.0.0.1:9000", Secret: strings.Repeat("s", 32), SecretFile: secret}, 4},
	}
	wantRoutes := map[string]Route{
		"resize": {"images", &WebhookTask{Deadline: 2 * time.Hour}},
		"blur":   {"plain", &WebhookTask{Deadline: 24 * time.Hour}},
	}
	if diff := cmp.Diff(wantExecutors, c.Executors) + cmp.Diff(wantRoutes, c.Routes); diff != "" {
		t.Error(diff)
	}
	if got := c.TaskTypes(); !slices.Equal(got, []string{"blur", "hash", "resize"}) {
		t.Errorf("task types %q", got)
	}
}

func TestACommandOfAFlagReplacesARouteOfTheFile(t *testing.T) {
	file := writeFile(t, "executors: {x: {kind: webhook, url: 'http://x'}}\ntasks: {a: {executor: x}}")
	c := load(t, []string{"--config", file, "--task", "a=true"}, nil)
	if len(c.Routes) != 0 || len(c.Tasks) != 1 || c.Source("tasks.a") != "--task" {
		t.Errorf("routes %v, tasks %v, from %s", c.Routes, c.Tasks, c.Source("tasks.a"))
	}
}

func TestAMistakeInARuntimeIsToldWithItsLine(t *testing.T) {
	const hook = "executors:\n  x:\n    kind: webhook\n    url: http://x\n"
	for _, test := range []struct{ name, file, want string }{
		{"no mapping", "executors: [a]", "line 1: executors must be a mapping"},
		{"no mapping inside", "executors:\n  x: a", "line 2: executors.x must be a mapping"},
		{"no kind", "executors:\n  x: {url: a}", "line 2: executors.x must say its kind, one of [asynq k8sjob temporal webhook]"},
		{"unknown kind", "executors:\n  x:\n    kind: cron", `line 3: executors.x.kind must be one of [asynq k8sjob temporal webhook], not "cron"`},
		{"name of the server's own", "executors:\n  process: {kind: webhook}", "line 2: executors.process must have another name"},
		{"name that is no text", "executors:\n  5: {kind: webhook}", "line 2: executors must map names (text)"},
		{"no address", "executors:\n  x:\n    kind: webhook", "line 3: executors.x.url must be set"},
		{"address of no kind", "executors:\n  x:\n    kind: webhook\n    url: ftp://a", "line 4: executors.x.url must be an http or https address"},
		{"address with a password", "executors:\n  x:\n    kind: webhook\n    url: http://a:b@c", "line 4: executors.x.url must be an http or https address without user"},
		{"unknown setting", hook + "    retries: 5", "line 5: executors.x.retries is no setting here; there are kind, url, secret, secretFile"},
		{"short secret", hook + "    secret: abc", "line 5: executors.x.secret must have at least 32 bytes"},
		{"secret that is no text", hook + "    secret: 12345", "line 5: executors.x.secret must be text"},
		{"secret that is a mapping", hook + "    secret: {a: secret@b}", "line 5: executors.x.secret must be text (quote it?)"},
		{"kind that is a mapping", "executors:\n  x:\n    kind: {a: secret@b}", "line 3: executors.x.kind must be text that is not empty"},
		{"short secret in a file", hook + "    secretFile: " + writeFile(t, "abc\n"), "line 5: executors.x.secretFile must have at least 32 bytes"},
		{"missing file of the secret", hook + "    secretFile: /no/such/file", "line 5: executors.x.secretFile cannot be read"},
		{"unknown executor", hook + "tasks:\n  a:\n    executor: y", `line 7: tasks.a.executor names "y", which is none of executors: [x]`},
		{"executor and command", hook + "tasks:\n  a:\n    executor: x\n    command: c", "line 7: tasks.a.executor and command must not both be set"},
		{"setting of commands", hook + "tasks:\n  a:\n    executor: x\n    dir: c", "line 8: tasks.a.dir is no setting here; there are executor, deadline"},
		{"no time", hook + "tasks:\n  a:\n    executor: x\n    deadline: 5", "line 8: tasks.a.deadline must be a duration"},
		{"name twice", hook + "  x: {kind: webhook}", "already defined"},
		{"no type", hook + "tasks:\n  a: {executor: ''}", "line 6: tasks.a.executor must be text that is not empty"},
		{"unused", hook, "line 2: executors.x is not used"},
		{"queue without an address", "executors:\n  x:\n    kind: asynq", "line 3: executors.x.url must be set"},
		{"queue of another kind", "executors:\n  x:\n    kind: asynq\n    url: http://a:secret@b", "line 4: executors.x.url must begin with redis://"},
		{"queue whose password is missing", "executors:\n  x:\n    kind: asynq\n    url: redis://b\n    passwordFile: " + writeFile(t, "\n"), "line 5: executors.x.passwordFile names a file that is empty"},
		{"queue with two passwords", "executors:\n  x:\n    kind: asynq\n    url: redis://:secret@b\n    passwordFile: c", "line 5: executors.x.passwordFile and a password in url"},
		{"queue on no host", "executors:\n  x:\n    kind: asynq\n    url: redis://:secret@:6379/0", "line 4: executors.x.url must name a host"},
		{"queue in no socket", "executors:\n  x:\n    kind: asynq\n    url: 'redis-socket://'", "line 4: executors.x.url must have the path of a socket"},
		{"queue of no master", "executors:\n  x:\n    kind: asynq\n    url: redis-sentinel://a:26379", "line 4: executors.x.url must name the master"},
		{"retries below none", "executors: {x: {kind: asynq, url: 'redis://a'}}\ntasks:\n  a:\n    executor: x\n    maxRetry: -1", "line 5: tasks.a.maxRetry must be 0 or more"},
		{"retries that are no number", "executors: {x: {kind: asynq, url: 'redis://a'}}\ntasks:\n  a:\n    executor: x\n    maxRetry: many", "line 5: tasks.a.maxRetry must be a whole number"},
		{"a frontend without an address", "executors:\n  x:\n    kind: temporal", "line 3: executors.x.address must be set"},
		{"a frontend without a port", "executors:\n  x:\n    kind: temporal\n    address: a", `line 4: executors.x.address must be like "host:7233"`},
		{"a frontend at no port", "executors:\n  x:\n    kind: temporal\n    address: a:b", `line 4: executors.x.address must be like "host:7233"`},
		{"a frontend at too high a port", "executors:\n  x:\n    kind: temporal\n    address: a:65536", `line 4: executors.x.address must be like "host:7233"`},
		{"two keys in a file", "executors:\n  x:\n    kind: temporal\n    address: a:1\n    apiKeyFile: " + writeFile(t, "secret@b\nanother\n"), "line 5: executors.x.apiKeyFile names a file with more than a key"},
		{"an empty file of the key", "executors:\n  x:\n    kind: temporal\n    address: a:1\n    apiKeyFile: " + writeFile(t, " \n"), "line 5: executors.x.apiKeyFile names a file that is empty"},
		{"a certificate without its key", "executors:\n  x:\n    kind: temporal\n    address: a:1\n    certFile: c", "line 5: executors.x.certFile and keyFile belong together"},
		{"attempts below one", "executors: {x: {kind: temporal, address: 'a:1'}}\ntasks:\n  a:\n    executor: x\n    maxAttempts: 0", "line 5: tasks.a.maxAttempts must be 1 or more"},
		{"an attempt of less than a second", "executors: {x: {kind: asynq, url: 'redis://a'}}\ntasks:\n  a:\n    executor: x\n    timeout: 1500ms", "line 5: tasks.a.timeout must be whole seconds, not 1.5s"},
		{"all attempts in less than a second", "executors: {x: {kind: asynq, url: 'redis://a'}}\ntasks:\n  a:\n    executor: x\n    deadline: 5ms", "line 5: tasks.a.deadline must be 1s or more"},
		{"queue without a name", "executors: {x: {kind: asynq, url: 'redis://a'}}\ntasks:\n  a:\n    executor: x\n    queue: ' '", "line 5: tasks.a.queue must not be blank"},
		{"the demonstration's type", hook + "tasks:\n  demo: {executor: x}", "tasks.demo"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := writeFile(t, test.file)
			_, err := Load([]string{"--config", file}, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret@") || !strings.Contains(err.Error(), file) {
				t.Errorf("%v\nwant the file and %q", err, test.want)
			}
		})
	}
}

func TestWorkersKeysAreReadAndNeverShown(t *testing.T) {
	key := strings.Repeat("k", 32)
	c := load(t, []string{"--worker-keys-file", writeFile(t, key+"\n\n"+key+"2\n"), "--worker-url", "https://tasks.example"}, []string{"TASKBRIDGE_WORKER_TOKEN_LIFETIME=1m"})
	if len(c.Worker.Keys) != 2 || string(c.Worker.Keys[0]) != key || c.Worker.TokenLifetime != time.Minute {
		t.Errorf("%q, %s", c.Worker.Keys, c.Worker.TokenLifetime)
	}
	for _, args := range [][]string{
		{"--worker-keys", "short"}, {"--worker-keys-file", "/no/such/file"}, {"--worker-keys-file", writeFile(t, "\n")},
		{"--worker-keys-file", writeFile(t, key+"\nshort\n")},
		{"--worker-url", "tasks.example"}, {"--worker-url", "https://tasks.example/path"}, {"--worker-token-lifetime", "1ms"},
	} {
		if _, err := Load(args, nil); err == nil || !strings.Contains(err.Error(), "(from "+args[0][:8]) || strings.Contains(err.Error(), "short\"") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestTheQueuesPasswordMayBeInAFile(t *testing.T) {
	c := load(t, []string{"--config", writeFile(t, "executors: {x: {kind: asynq, url: 'redis://worker@a:6379/1', passwordFile: "+writeFile(t, "p@ss\n")+"}}\n"+
		"tasks: {a: {executor: x, queue: low, timeout: 1m, maxRetry: 0}}")}, nil)
	none := 0
	if diff := cmp.Diff(&AsynqTask{Queue: "low", Timeout: time.Minute, MaxRetry: &none, Line: 2}, c.Routes["a"].Settings); diff != "" {
		t.Error(diff)
	}
	if got := c.Executors["x"].Settings.(*Asynq).URL; got != "redis://worker:p%40ss@a:6379/1" {
		t.Errorf("the address is %q", got)
	}
}

func TestATemporalKeyTurnsOnTLS(t *testing.T) {
	c := load(t, []string{"--config", writeFile(t, "executors: {x: {kind: temporal, address: 'a:7233', namespace: n, apiKeyFile: "+writeFile(t, "key\n")+"}}\n"+
		"tasks: {a: {executor: x, taskQueue: q, workflow: W, executionTimeout: 1h, maxAttempts: 3, terminateAfter: 1m}}")}, nil)
	three := 3
	if diff := cmp.Diff(&TemporalTask{TaskQueue: "q", Workflow: "W", ExecutionTimeout: time.Hour, MaxAttempts: &three, TerminateAfter: time.Minute}, c.Routes["a"].Settings); diff != "" {
		t.Error(diff)
	}
	if got := c.Executors["x"].Settings.(*Temporal); !got.TLS || got.APIKey != "key" || got.Namespace != "n" {
		t.Errorf("the settings are %+v", got)
	}
}
