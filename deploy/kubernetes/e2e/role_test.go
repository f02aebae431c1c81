package e2e

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// recorder stands before the API server and notes what is asked for, and what is
// forbidden.
type recorder struct {
	url         string
	certificate []byte // its own
	mu          sync.Mutex
	asked       map[string]bool // "verb group/resource"
	forbidden   []string
}

func record(t *testing.T, c *cluster) *recorder {
	t.Helper()
	r := &recorder{asked: map[string]bool{}}
	api, err := url.Parse(c.config.Host)
	must(t, err)
	anonymous := rest.AnonymousClientConfig(c.config)
	transport, err := rest.TransportFor(anonymous)
	must(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(api)
			r.note(p.In)
		},
		ModifyResponse: func(response *http.Response) error {
			if response.StatusCode == http.StatusForbidden {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.forbidden = append(r.forbidden, response.Request.Method+" "+response.Request.URL.Path)
			}
			return nil
		},
		Transport: transport, FlushInterval: -1, // watches and logs as they come
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }, // who asked is gone
	}
	server := httptest.NewTLSServer(proxy) // without TLS client-go sends no credentials
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.url = server.URL
	r.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return r
}

// note names a request as a Role does.
func (r *recorder) note(request *http.Request) {
	parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
	group := ""
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		group, parts = parts[1], parts[3:]
	default:
		return // no resource: /version, /readyz
	}
	if group == "authorization.k8s.io" {
		return // what one may do oneself, which Kubernetes tells everybody
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	resource, named := parts[0], len(parts) > 1
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[request.Method]
	switch watch := request.URL.Query().Get("watch"); {
	case verb == "delete" && !named:
		verb = "deletecollection"
	case verb != "":
	case watch == "true" || watch == "1":
		verb = "watch"
	case named:
		verb = "get"
	default:
		verb = "list"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[verb+" "+group+"/"+resource] = true
	if verb == "watch" {
		// A watch that begins with what is there needs no list, but older API
		// servers don't have it.
		r.asked["list "+group+"/"+resource] = true
	}
}

// granted names what a Role grants, in the same way.
func granted(role *rbacv1.Role) []string {
	var all []string
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// neverTemplate is a Job that no node takes.
const neverTemplate = `
apiVersion: v1
kind: PodTemplate
template:
  spec:
    nodeSelector: {taskbridge.test/node: none}
    containers: [{name: work, image: "taskbridge.test/shell:e2e"}]
`

// missingTemplate is a Job whose image is nowhere.
const missingTemplate = `
apiVersion: v1
kind: PodTemplate
template:
  spec:
    containers: [{name: work, image: "taskbridge.test/missing:1", imagePullPolicy: Never}]
`

func TestClusterTheRoleGrantsWhatAServerAsksForAndNothingElse(t *testing.T) {
	c := newCluster(t)
	c.namespaces(t, serverNamespace, jobsNamespace)
	program := build(t, "server", "cmd/taskbridge")
	c.importImage(t, "taskbridge.test/shell:e2e", append([]string{"--file", program + ":/bin/taskbridge"}, busybox("sh", "sed", "wget")...)...)
	objects := render(t, root(t, "deploy", "kubernetes", "base"))
	c.apply(t, slices.DeleteFunc(slices.Clone(objects), func(object *unstructured.Unstructured) bool {
		return !slices.Contains([]string{"Namespace", "ServiceAccount", "Role", "RoleBinding"}, object.GetKind())
	}))
	token, err := c.client.CoreV1().ServiceAccounts(serverNamespace).CreateToken(c.ctx, "taskbridge", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)

	r, g, dir := record(t, c), newGates(t), t.TempDir()
	s := startServer(t, dir, map[string]string{
		"kubeconfig":   kubeconfig(r.url, r.certificate, token.Status.Token),
		"lines.yaml":   linesTemplate,
		"report.yaml":  reportTemplate,
		"never.yaml":   neverTemplate,
		"missing.yaml": missingTemplate,
		"taskbridge.yaml": `
demo: false
executors:
  jobs: {kind: k8sjob, namespace: taskbridge-jobs, kubeconfig: kubeconfig}
tasks:
  lines: {executor: jobs, template: lines.yaml, input: configmap}
  report: {executor: jobs, template: report.yaml, reports: worker}
  never: {executor: jobs, template: never.yaml}
  missing: {executor: jobs, template: missing.yaml, pendingTimeout: 1s}
`}, true)
	client := s.client(t)
	for _, taskType := range []string{"lines", "report"} {
		g.open(taskType, 1, 2, 3)
		f := follow(c.ctx, t, client, taskType, taskType, g.input(taskType))
		f.await(t, "TASK_COMPLETED")
		cancelled := follow(c.ctx, t, client, taskType, "cancelled-"+taskType, g.input("cancelled-"+taskType))
		cancelled.await(t, "step 1")
		_, err := client.Cancel(c.ctx, cancelled.task, "")
		must(t, err)
		cancelled.await(t, "TASK_CANCELLED")
	}
	never := follow(c.ctx, t, client, "never", "never", nil)
	never.await(t, "TASK_MESSAGE") // that no node takes it
	_, err = client.Cancel(c.ctx, never.task, "")
	must(t, err)
	never.await(t, "TASK_CANCELLED")
	follow(c.ctx, t, client, "missing", "missing", nil).await(t, "TASK_FAILED")
	// A server that starts finds what is there.
	s.stop(t)
	s = startServer(t, dir, nil, true)
	g.open("again", 1, 2, 3)
	follow(c.ctx, t, s.client(t), "lines", "again", g.input("again")).await(t, "TASK_COMPLETED")
	s.stop(t)

	r.mu.Lock()
	defer r.mu.Unlock()
	asked := slices.Sorted(maps.Keys(r.asked))
	if want := granted(typed(t, objects, &rbacv1.Role{})); !slices.Equal(asked, want) {
		t.Errorf("the server asked for\n%s\nand the Role grants\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	if len(r.forbidden) > 0 {
		t.Errorf("it was forbidden to\n%s", strings.Join(r.forbidden, "\n"))
	}
}

// kubeconfig is one of a token.
func kubeconfig(server string, certificate []byte, token string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: test, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
`, server, base64.StdEncoding.EncodeToString(certificate), token)
}
