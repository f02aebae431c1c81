package config

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "taskbridge.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, args, environ []string) *Config {
	t.Helper()
	c, err := Load(args, environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWithoutConfigurationTheDefaultsHold(t *testing.T) {
	c := load(t, nil, []string{"HOME=/root", "PATH=/bin"})
	if c.Listen != "127.0.0.1:8080" || c.Store != StoreSQLite || c.Data != "taskbridge-data" || !c.Demo ||
		c.LogLevel != slog.LevelInfo || c.LogFormat != LogText || c.HTTP.BodyBytes != 2*(1<<20+64<<10) || c.DrainTimeout != 25*time.Second || len(c.Tasks) != 0 {
		t.Errorf("defaults: %+v", c)
	}
	if got := c.Source("listen"); got != "the default" {
		t.Errorf("source of a default: %s", got)
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	file := writeFile(t, `
listen: 127.0.0.1:1111
data: from-file
log: {level: warn, format: json}
limits:
  inputBytes: 1000
http:
  allowedHosts: [one.example, two.example]
  heartbeat: 5s
tasks:
  both: {command: from the file, plainLines: true}
  filed: {command: [a, "b c"], dir: /tmp, env: {B: "2", A: "1"}, timeout: 3s, inheritEnv: all}
`)
	c := load(t,
		[]string{"--listen", "127.0.0.1:3333", "--task", "both=from a flag", "--task", `flagged=x 'y z' "$HOME" *`, "--demo=false", "--config", file},
		[]string{
			"TASKBRIDGE_LISTEN=127.0.0.1:2222", "TASKBRIDGE_DATA=from-env", "TASKBRIDGE_LIMIT_INPUT_BYTES=2000",
			"TASKBRIDGE_TASK=both=from the environment\n\n env=e1 e2 \n", "TASKBRIDGE_DEMO=true",
			"TASKBRIDGE_STORE=", "TASKBRIDGE_TASK_ID=the work's", "TASKBRIDGE_CONFIG=/not/read",
		})
	want := map[string]Command{
		"both":    {Argv: []string{"from", "a", "flag"}},
		"flagged": {Argv: []string{"x", "y z", "$HOME", "*"}},
		"env":     {Argv: []string{"e1", "e2"}},
		"filed":   {Argv: []string{"a", "b c"}, Dir: "/tmp", Env: []string{"A=1", "B=2"}, Timeout: 3 * time.Second, InheritEnv: InheritAll},
	}
	if diff := cmp.Diff(want, c.Tasks); diff != "" {
		t.Error(diff)
	}
	if c.Listen != "127.0.0.1:3333" || c.Data != "from-env" || c.Limits.Input != 2000 || c.LogLevel != slog.LevelWarn ||
		c.LogFormat != LogJSON || c.Demo || c.HTTP.Heartbeat != 5*time.Second || c.Store != StoreSQLite {
		t.Errorf("%+v", c)
	}
	if want := []string{"one.example", "two.example"}; !slices.Equal(c.HTTP.AllowedHosts, want) {
		t.Errorf("allowed hosts %q, want %q", c.HTTP.AllowedHosts, want)
	}
	for key, want := range map[string]string{
		"listen": "--listen", "data": "TASKBRIDGE_DATA", "log.level": file, "tasks.both": "--task",
		"tasks.env": "TASKBRIDGE_TASK", "tasks.filed": file, "store": "the default",
	} {
		if got := c.Source(key); got != want {
			t.Errorf("source of %s: %s, want %s", key, got, want)
		}
	}
}

func TestTasksMayBeKeptForGood(t *testing.T) {
	for _, value := range []string{"forever", "0", "0s", "-1h"} {
		if c := load(t, []string{"--retention=" + value}, nil); c.Retention != -1 {
			t.Errorf("%s: retention %s", value, c.Retention)
		}
	}
}

func TestRetentionMayBeOneOfATasksType(t *testing.T) {
	want := map[string]time.Duration{"a.b": time.Hour, "c=d": -1, "e": -1}
	for way, args := range map[string][]string{
		"file": {"--config", writeFile(t, "retention: {keep: 48h, byType: {a.b: 1h, c=d: forever, e: 0}}")},
		"flag": {"--retention=48h", "--retention-by-type=a.b=1h,c=d=forever, e=0"},
	} {
		c := load(t, args, nil)
		if diff := cmp.Diff(want, c.RetentionByType); diff != "" || c.Retention != 48*time.Hour {
			t.Errorf("%s: %s, %s", way, c.Retention, diff)
		}
	}
}

func TestTheEnvironmentMayNameTheFile(t *testing.T) {
	file := writeFile(t, "demo: false")
	if c := load(t, nil, []string{"TASKBRIDGE_CONFIG=" + file}); c.Demo {
		t.Error("the file was not read")
	}
}

func TestAnEmptyFileOrSectionSetsNothing(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "log:\nlimits: {}\ntasks:\n"} {
		c := load(t, []string{"--config", writeFile(t, content)}, nil)
		if diff := cmp.Diff(Default().Limits, c.Limits); diff != "" || c.Listen != Default().Listen {
			t.Errorf("%q: %s", content, diff)
		}
	}
}

func TestAWrongSettingIsNamedWithItsSource(t *testing.T) {
	for _, test := range []struct {
		name          string
		args, environ []string
		file          string
		want          []string // all of it in the error
	}{
		{"flag out of range", []string{"--limit-stream-events=0"}, nil, "", []string{"limits.streamEvents (from --limit-stream-events)", "from 1 to"}},
		{"variable of the wrong kind", nil, []string{"TASKBRIDGE_HTTP_BODY_BYTES=many"}, "", []string{"http.bodyBytes (from TASKBRIDGE_HTTP_BODY_BYTES)", `"many"`}},
		{"file of the wrong kind", nil, nil, "http: {heartbeat: 15}", []string{"http.heartbeat", "taskbridge.yaml", "unit"}},
		{"level", []string{"--log-level", "loud"}, nil, "", []string{"log.level (from --log-level)", "debug info warn error", "loud"}},
		{"format", []string{"--log-format", "xml"}, nil, "", []string{"log.format", "text json"}},
		{"store", nil, []string{"TASKBRIDGE_STORE=postgres"}, "", []string{"store (from TASKBRIDGE_STORE)", "sqlite memory", "postgres"}},
		{"retention", []string{"--retention", "never"}, nil, "", []string{"retention.keep (from --retention)", "never"}},
		{"retention of less than a second", []string{"--retention=10ms"}, nil, "", []string{"retention.keep", "1s"}},
		{"retention of a type", nil, []string{"TASKBRIDGE_RETENTION_BY_TYPE=a=soon"}, "", []string{"retention.byType (from TASKBRIDGE_RETENTION_BY_TYPE)", `"a"`, "soon"}},
		{"boolean", nil, nil, "demo: maybe", []string{"demo", "true or false"}},
		{"unknown key", nil, nil, "listne: 127.0.0.1:80", []string{"listne is no setting", "taskbridge.yaml"}},
		{"unknown nested key", nil, nil, "limits: {inputByte: 3}", []string{"limits.inputByte is no setting"}},
		{"a value for a section", nil, nil, "limits: 3", []string{"limits is no setting"}},
		{"a section for a value", nil, nil, "listen: {host: a}", []string{"listen.host is no setting"}},
		{"unknown flag", []string{"--lissen", "x"}, nil, "", []string{"--lissen"}},
		{"argument", []string{"now"}, nil, "", []string{`"now"`}},
		{"no YAML", nil, nil, "listen: [", []string{"taskbridge.yaml", "yaml"}},
		{"no mapping", nil, nil, "- a\n- b", []string{"taskbridge.yaml"}},
		{"two documents", nil, nil, "demo: true\n---\ndemo: false", []string{"one YAML document"}},
		{"key twice", nil, nil, "demo: true\ndemo: false", []string{`: line 2: mapping key "demo" already defined at line 1`}},
		{"nested keys twice", nil, nil, "log: {level: info}\nlimits:\n  inputBytes: 10\n  inputBytes: 20\n  eventBytes: 2000\n  eventBytes: 3000",
			[]string{`line 4: mapping key "inputBytes" already defined at line 3; line 6: mapping key "eventBytes" already defined at line 5`}},
		{"missing file", []string{"--config", "/nowhere/x.yaml"}, nil, "", []string{"/nowhere/x.yaml", "--config"}},
		{"lease shorter than timeout", []string{"--submission-lease=5s"}, nil, "", []string{"submission.lease (from --submission-lease)", "submission.timeout"}},
		{"limit without an executor", []string{"--submission-missing-executor-limit=1ms"}, nil, "", []string{"submission.missingExecutorLimit (from --submission-missing-executor-limit)", "1s", "never"}},
		{"limit that is none", nil, nil, "submission: {missingExecutorLimit: soon}", []string{"submission.missingExecutorLimit", "soon"}},
		{"retries", nil, []string{"TASKBRIDGE_SUBMISSION_RETRY_MAX=1ms"}, "", []string{"submission.retryMax", "submission.retryMin"}},
		{"rate below zero", []string{"--rate-limit-creates-per-second=-1"}, nil, "", []string{"rateLimit.createsPerSecond", `"-1"`}},
		{"rate that is none", []string{"--rate-limit-requests-per-second=NaN"}, nil, "", []string{"rateLimit.requestsPerSecond", "NaN"}},
		{"certificate without key", []string{"--tls-cert-file=c"}, nil, "", []string{"tls.certFile (from --tls-cert-file)", "tls.keyFile"}},
		{"no origin", []string{"--cors-allowed-origins=app.example"}, nil, "", []string{"cors.allowedOrigins", `"app.example"`}},
		{"origin with a path", []string{"--cors-allowed-origins=https://app.example/"}, nil, "", []string{"cors.allowedOrigins", "app.example/"}},
		{"origin with a pattern", []string{"--cors-allowed-origins=https://*.example"}, nil, "", []string{"cors.allowedOrigins"}},
		{"profiles for the world", []string{"--pprof-listen=:6060"}, nil, "", []string{"pprof.listen (from --pprof-listen)", "loopback"}},
		{"metrics without a port", []string{"--metrics-listen=here"}, nil, "", []string{"metrics.listen", "HOST:PORT"}},
		{"auth mode", []string{"--auth-modes=basic"}, nil, "", []string{"auth.modes (from --auth-modes)", "apikey, jwt and proxy", "basic"}},
		{"auth mode beside none", nil, nil, "auth: {modes: [none, jwt]}", []string{"auth.modes", "none alone"}},
		{"no auth mode", nil, nil, "auth: {modes: []}", []string{"auth.modes", "none alone"}},
		{"keys without their mode", nil, []string{"TASKBRIDGE_AUTH_API_KEYS_FILE=x"}, "", []string{"auth.apiKeys.file (from TASKBRIDGE_AUTH_API_KEYS_FILE)", "auth.modes does not have apikey"}},
		{"mode without keys", []string{"--auth-modes=apikey"}, nil, "", []string{"auth.apiKeys.file"}},
		{"mode without issuer", []string{"--auth-modes=jwt"}, nil, "", []string{"auth.jwt.issuer"}},
		{"mode without audience", []string{"--auth-modes=jwt", "--auth-jwt-issuer=i"}, nil, "", []string{"auth.jwt.audiences"}},
		{"mode without key set", []string{"--auth-modes=jwt", "--auth-jwt-issuer=i", "--auth-jwt-audiences=a"}, nil, "", []string{"auth.jwt.keysURL", "keysFile"}},
		{"mode without trust", []string{"--auth-modes=proxy"}, nil, "", []string{"auth.proxy.trusted", "auth.proxy.secrets"}},
		{"missing file of secrets", []string{"--auth-modes=proxy", "--auth-proxy-secrets-file=/nowhere/s"}, nil, "", []string{"auth.proxy.secretsFile", "/nowhere/s"}},
		{"no address", []string{"--auth-modes=proxy", "--auth-proxy-trusted=here"}, nil, "", []string{"auth.proxy.trusted", `"here"`}},
		{"no scope", []string{"--auth-modes=jwt", "--auth-jwt-default-scopes=all"}, nil, "", []string{"auth.jwt.defaultScopes", "tasks:read", `"all"`}},
		{"no scope in a map", nil, nil, "auth: {modes: [jwt], jwt: {scopeMap: {viewer: [all]}}}", []string{"auth.jwt.scopeMap", `"viewer"`, `"all"`}},
		{"map without a sign", []string{"--auth-modes=jwt", "--auth-jwt-scope-map=viewer"}, nil, "", []string{"auth.jwt.scopeMap", "NAME=VALUE"}},
		{"no data folder", []string{"--data="}, nil, "", []string{"data (from --data)", "empty"}},
		{"task without command", []string{"--task", "a="}, nil, "", []string{"--task", `"a"`, "name a command"}},
		{"task without type", []string{"--task", "=x"}, nil, "", []string{"--task", "TYPE=COMMAND"}},
		{"task without equals sign", nil, []string{"TASKBRIDGE_TASK=x"}, "", []string{"TASKBRIDGE_TASK", "TYPE=COMMAND"}},
		{"task with an open quote", []string{"--task", "a='b"}, nil, "", []string{"--task", `"a"`, "split"}},
		{"task twice", []string{"--task", "a=b", "--task", "a=c"}, nil, "", []string{"--task", `"a" twice`}},
		{"task with a control character", []string{"--task", "a\x01b=c"}, nil, "", []string{"control characters"}},
		{"demo twice", []string{"--task", "demo=c"}, nil, "", []string{"tasks.demo (from --task)", "demo: false"}},
		{"task that is no mapping", nil, nil, "tasks: {a: b}", []string{"tasks.a", `"command"`}},
		{"tasks that are no mapping", nil, nil, "tasks: [a]", []string{"tasks"}},
		{"task with an unknown key", nil, nil, "tasks: {a: {command: b, shell: true}}", []string{"tasks.a.shell is no setting"}},
		{"task without the key", nil, nil, "tasks: {a: {dir: b}}", []string{"tasks.a.command is missing"}},
		{"task with a number for a word", nil, nil, "tasks: {a: {command: [sleep, 5]}}", []string{"tasks.a.command", "5"}},
		{"task with an empty list", nil, nil, "tasks: {a: {command: []}}", []string{"tasks.a.command", "name a command"}},
		{"task with a bad timeout", nil, nil, "tasks: {a: {command: b, timeout: 5}}", []string{"tasks.a.timeout", "unit"}},
		{"task with a bad inheritance", nil, nil, "tasks: {a: {command: b, inheritEnv: [PATH]}}", []string{"tasks.a.inheritEnv", "basic, all or none"}},
		{"task with a bad dir", nil, nil, "tasks: {a: {command: b, dir: 5}}", []string{"tasks.a.dir", "text"}},
		{"task with a bad variable", nil, nil, "tasks: {a: {command: b, env: {X: 5}}}", []string{"tasks.a.env", `"X"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			if test.file != "" {
				args = append(args, "--config", writeFile(t, test.file))
			}
			_, err := Load(args, test.environ)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than a line", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestOnlyLoopbackMayBeListenedOn(t *testing.T) {
	for address, allowed := range map[string]bool{
		"127.0.0.1:8080": true, "127.1.2.3:0": true, "[::1]:8080": true, "localhost:0": true, "LOCALHOST:80": true,
		"[::ffff:127.0.0.1]:1": true,
		":8080":                false, "0.0.0.0:8080": false, "[::]:8080": false, "192.0.2.1:80": false,
		"10.0.0.1:80": false, "[fe80::1]:80": false, "host.invalid:80": false,
		"127.0.0.1": false, "127.0.0.1:http": false, "127.0.0.1:65536": false, "127.0.0.1:-1": false, "": false, "::1:80": false,
	} {
		_, err := Load([]string{"--listen=" + address}, nil)
		if (err == nil) != allowed {
			t.Errorf("%q: %v, want allowed=%v", address, err, allowed)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "listen (from --listen) ") {
			t.Errorf("%q: %v does not name the setting", address, err)
		}
	}
	_, err := Load([]string{"--listen=0.0.0.0:80"}, nil)
	if err == nil || !strings.Contains(err.Error(), "without access control") {
		t.Errorf("%v does not say why", err)
	}
}

func TestEverySettingHasAllItsFormsAndADefaultThatItTakes(t *testing.T) {
	var help strings.Builder
	if err := Help(&help); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range groups {
		for _, s := range g.settings {
			if seen[s.key] || seen[s.flag] && s.key != s.flag {
				t.Errorf("%s is there twice", s.key)
			}
			seen[s.key], seen[s.flag] = true, true
			if !strings.Contains(help.String(), "  --"+s.flag+" ") && !strings.Contains(help.String(), "  --"+s.flag+"[=BOOL]") {
				t.Errorf("--%s is not in the help", s.flag)
			}
			// The default goes in by each way and comes out unchanged.
			shown := s.parse.show(Default())
			if shown == "" {
				continue
			}
			var with []string // modes in which the setting has a meaning
			if strings.HasPrefix(s.key, "auth.") && strings.Count(s.key, ".") == 2 {
				with = []string{
					"TASKBRIDGE_AUTH_MODES=apikey,jwt,proxy", "TASKBRIDGE_AUTH_API_KEYS_FILE=keys", "TASKBRIDGE_AUTH_JWT_ISSUER=i",
					"TASKBRIDGE_AUTH_JWT_AUDIENCES=a", "TASKBRIDGE_AUTH_JWT_KEYS_FILE=k", "TASKBRIDGE_AUTH_PROXY_TRUSTED=10.0.0.1",
				}
			}
			if strings.HasPrefix(s.key, "rateLimit.") {
				with = []string{"TASKBRIDGE_AUTH_MODES=apikey", "TASKBRIDGE_AUTH_API_KEYS_FILE=keys"}
			}
			for way, c := range map[string]*Config{
				"flag":        load(t, []string{"--" + s.flag + "=" + shown}, with),
				"environment": load(t, nil, append(slices.Clone(with), s.env()+"="+shown)),
				"file":        load(t, []string{"--config", writeFile(t, nested(s.key, shown))}, with),
			} {
				if got := s.parse.show(c); got != shown {
					t.Errorf("%s by %s: %s, want %s", s.key, way, got, shown)
				}
			}
		}
	}
	for number, line := range slices.Collect(strings.Lines(help.String())) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 105 {
			t.Errorf("line %d of the help has %d columns", number+1, n)
		}
	}
}

// nested writes a dotted key as YAML.
func nested(key, value string) string {
	var yaml strings.Builder
	parts := strings.Split(key, ".")
	for depth, part := range parts {
		yaml.WriteString(strings.Repeat("  ", depth) + part + ":")
		if depth < len(parts)-1 {
			yaml.WriteString("\n")
		}
	}
	return yaml.String() + " " + value + "\n"
}

func TestTaskTypesMayHaveDotsInThem(t *testing.T) {
	c := load(t, []string{"--config", writeFile(t, "tasks: {video.transcode.v2: {command: x}}")}, nil)
	if got := slices.Collect(maps.Keys(c.Tasks)); !slices.Equal(got, []string{"video.transcode.v2"}) {
		t.Errorf("types %q", got)
	}
}

func TestWithoutAccessControlOnlyTheLimitsThatAreSetHold(t *testing.T) {
	if got, want := load(t, nil, nil).RateLimit, (RateLimit{TotalStreams: 20_000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	got := load(t, []string{"--rate-limit-requests-per-second=2.5", "--rate-limit-streams=3"}, nil).RateLimit
	if want := (RateLimit{RequestsPerSecond: 2.5, RequestsBurst: 100, Streams: 3, TotalStreams: 20_000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	got = load(t, []string{"--auth-modes=apikey", "--auth-api-keys-file=k", "--rate-limit-streams=0"}, nil).RateLimit
	if want := (RateLimit{50, 10, 100, 50, 100, 0, 20_000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	got = load(t, []string{"--auth-modes=apikey", "--auth-api-keys-file=k", "--rate-limit-requests-per-second=0", "--rate-limit-creates-per-second=0"}, nil).RateLimit
	if want := (RateLimit{ConcurrentRequests: 100, Streams: 200, TotalStreams: 20_000}); got != want {
		t.Errorf("without rates: %+v", got)
	}
}

func TestATaskWithoutAnExecutorMayBeWaitedForWithoutAnEnd(t *testing.T) {
	for given, want := range map[string]time.Duration{"0": -1, "never": -1, "0s": -1, "90m": 90 * time.Minute} {
		for way, c := range map[string]*Config{
			"flag": load(t, []string{"--submission-missing-executor-limit=" + given}, nil),
			"file": load(t, []string{"--config", writeFile(t, "submission: {missingExecutorLimit: "+given+"}")}, nil),
		} {
			if got := c.Submission.MissingExecutorLimit; got != want {
				t.Errorf("%s by %s is %s, want %s", given, way, got, want)
			}
		}
	}
}
