package k8sjob

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ClientOptions configures [NewClient].
type ClientOptions struct {
	// Kubeconfig is the path of a kubeconfig file; "": the service account of the
	// pod that this process runs in. $KUBECONFIG and ~/.kube/config are never looked
	// at: they are a person's, and may be of any cluster.
	Kubeconfig string
	// Context is one of the file's; "": its current one.
	Context string
	// QPS and Burst bound the requests a second; defaults 500 and 1,000. (client-go's
	// own are 5 and 10: a Job a second.)
	QPS   float32
	Burst int
	// UserAgent is told to the API server; default "taskbridge".
	UserAgent string
	// Logger gets what the API server warns of, each text once: a policy that will
	// turn the pods down, say. nil: discarded.
	Logger *slog.Logger
}

// NewClient makes a client. It reads the file, or the pod's service account, and
// does not connect.
func NewClient(opts ClientOptions) (kubernetes.Interface, error) {
	config, err := restConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	return client, nil
}

func restConfig(opts ClientOptions) (*rest.Config, error) {
	var (
		config *rest.Config
		err    error
	)
	if opts.Kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: opts.Kubeconfig},
			&clientcmd.ConfigOverrides{CurrentContext: opts.Context}).ClientConfig()
	}
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = cmp.Or(opts.QPS, 500), cmp.Or(opts.Burst, 1000)
	config.UserAgent = cmp.Or(opts.UserAgent, "taskbridge")
	config.WarningHandlerWithContext = rest.NoWarnings{}
	if opts.Logger != nil {
		config.WarningHandlerWithContext = &warnings{logger: opts.Logger, told: map[string]bool{}}
	}
	return config, nil
}

// warnings logs what the API server warns of.
type warnings struct {
	logger *slog.Logger
	mu     sync.Mutex
	told   map[string]bool
}

// maxWarnings bounds the texts that are known to be told.
const maxWarnings = 1000

// HandleWarningHeaderWithContext makes it a [rest.WarningHandlerWithContext].
func (w *warnings) HandleWarningHeaderWithContext(ctx context.Context, _ int, _, text string) {
	w.mu.Lock()
	first := !w.told[text] && len(w.told) < maxWarnings
	if first {
		w.told[text] = true
	}
	w.mu.Unlock()
	if first {
		w.logger.WarnContext(ctx, "Kubernetes warns", "warning", text)
	}
}
