package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criClient asks containerd as the kubelet does.
type criClient struct {
	socket  string
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
}

// newCRIClient connects when it is first used, and again whenever it must.
func newCRIClient(socket string) (*criClient, error) {
	// That containerd is away now and then is no news.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &criClient{socket, conn, cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)}, nil
}

// ready is nil once pods can be run.
func (c *criClient) ready(ctx context.Context) error {
	status, err := c.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range status.GetStatus().GetConditions() {
		if !condition.GetStatus() {
			return fmt.Errorf("%s is false: %s %s", condition.GetType(), condition.GetReason(), condition.GetMessage())
		}
	}
	return nil
}

// load imports an image archive. It returns once the kubelet would find all of
// these images, which containerd's own list has a little earlier.
func (c *criClient) load(ctx context.Context, file string, names []string, p *process) error {
	ctr := exec.CommandContext(ctx, "ctr", "--address", c.socket, "--namespace", "k8s.io", "images", "import", file) //nolint:gosec // all of it is the cluster's own
	if output, err := ctr.CombinedOutput(); err != nil {
		return fmt.Errorf("import %s: %w: %s", strings.Join(names, ", "), err, output)
	}
	for _, name := range names {
		err := until(ctx, p, func(ctx context.Context) error {
			status, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
			if err == nil && status.GetImage() == nil {
				err = errors.New("it is not there")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for the image %s: %w", name, err)
		}
	}
	return nil
}
