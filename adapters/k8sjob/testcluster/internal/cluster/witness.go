package cluster

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// WitnessName is the name of a node that exists on paper only and takes no pods. It
// is always ready: where all nodes are lost at once, Kubernetes takes the fault for
// its own and evicts nobody, so that with one node alone a lost one would have no
// consequences.
const WitnessName = "witness-node"

const heartbeat = 3 * time.Second

// witness reports that node ready until it is stopped.
type witness struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (w *witness) stop() {
	w.cancel()
	<-w.done
}

// registerWitness makes the node and reports it ready.
func (c *Cluster) registerWitness(ctx context.Context) error {
	err := c.api.call(ctx, http.MethodPost, "/api/v1/nodes", map[string]any{
		"apiVersion": "v1",
		"kind":       "Node",
		"metadata":   map[string]any{"name": WitnessName},
		"spec":       map[string]any{"unschedulable": true},
	}, nil)
	var status *statusError
	if err != nil && (!errors.As(err, &status) || status.code != http.StatusConflict) {
		return err
	}
	return c.beat(ctx)
}

func (c *Cluster) beat(ctx context.Context) error {
	ready := map[string]any{
		"type": "Ready", "status": "True", "reason": "OnPaper", "message": "this node takes no pods",
		"lastHeartbeatTime": time.Now().UTC().Format(time.RFC3339),
	}
	return c.api.call(ctx, http.MethodPatch, "/api/v1/nodes/"+WitnessName+"/status",
		map[string]any{"status": map[string]any{"conditions": []any{ready}}}, nil)
}

func (c *Cluster) startWitness() *witness {
	ctx, cancel := context.WithCancel(context.Background())
	w := &witness{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = c.beat(ctx) // the API server may be away; the next beat will do
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}
