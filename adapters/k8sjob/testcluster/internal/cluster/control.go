package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/taskbridge/taskbridge/adapters/k8sjob/testcluster/internal/image"
)

// controlServer lets tests cause faults, over HTTP on a unix socket.
type controlServer struct {
	server *http.Server
	cancel context.CancelFunc // ends the requests that wait
	done   chan error
}

func (c *Cluster) serveControl() (*controlServer, error) {
	listener, err := net.Listen("unix", c.layout.control()) //nolint:noctx // it doesn't block
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /components", c.listComponents)
	mux.HandleFunc("POST /components/{name}/kill", func(w http.ResponseWriter, r *http.Request) {
		answer(w, c.KillComponent(r.PathValue("name")))
	})
	mux.HandleFunc("POST /components/{name}/start", func(w http.ResponseWriter, r *http.Request) {
		answer(w, c.StartComponent(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST /images", c.postImage)
	ctx, cancel := context.WithCancel(context.Background())
	s := &controlServer{cancel: cancel, done: make(chan error, 1)}
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: startTime,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() { s.done <- s.server.Serve(listener) }()
	return s, nil
}

// close returns once no request is left.
func (s *controlServer) close() error {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// answer is 204, or says what is wrong.
func answer(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrUnknown):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, ErrRunning), errors.Is(err, ErrStopped):
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (c *Cluster) listComponents(w http.ResponseWriter, _ *http.Request) {
	type component struct {
		Name    string `json:"name"`
		Running bool   `json:"running"`
		PID     int    `json:"pid,omitempty"`
	}
	list := []component{}
	for _, p := range c.parts {
		this := component{Name: p.name, Running: p.running()}
		if this.Running {
			this.PID = p.process.Load().cmd.Process.Pid
		}
		list = append(list, this)
	}
	writeAnswer(w, list)
}

func writeAnswer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// Nobody is left to be told of an error.
	_ = json.NewEncoder(w).Encode(v)
}

func (c *Cluster) postImage(w http.ResponseWriter, r *http.Request) {
	file, err := c.receive(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = os.Remove(file) }()
	names, err := c.Load(r.Context(), file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeAnswer(w, names)
}

// receive writes what is sent into a file.
func (c *Cluster) receive(body io.Reader) (name string, err error) {
	f, err := os.CreateTemp(c.layout.dir, "image-*.tar")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// Load imports an image archive, of the OCI's form or docker's, into the cluster's
// containerd and returns the images' names, which pods can use at once (with
// imagePullPolicy Never or IfNotPresent).
func (c *Cluster) Load(ctx context.Context, file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	names, err := image.Names(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return names, c.cri.load(ctx, file, names, c.part("containerd").process.Load())
}
