//go:build linux

package temporaladapter

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// sealing is a codec that encrypts payloads.
type sealing struct{ cipher.AEAD }

func newSealing(t *testing.T) sealing {
	t.Helper()
	block, err := aes.NewCipher([]byte("sixteen bytes of"))
	must(t, err)
	aead, err := cipher.NewGCMWithRandomNonce(block)
	must(t, err)
	return sealing{aead}
}

func (s sealing) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	sealed := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		plain, err := payload.Marshal()
		if err != nil {
			return nil, err
		}
		sealed[i] = &commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte("binary/sealed")}, Data: s.Seal(nil, nil, plain, nil)}
	}
	return sealed, nil
}

func (s sealing) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	opened := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		if !bytes.Equal(payload.GetMetadata()["encoding"], []byte("binary/sealed")) {
			return nil, errors.New("not sealed")
		}
		plain, err := s.Open(nil, nil, payload.GetData(), nil)
		if err != nil {
			return nil, err
		}
		opened[i] = &commonpb.Payload{}
		if err := opened[i].Unmarshal(plain); err != nil {
			return nil, err
		}
	}
	return opened, nil
}

func TestAClientThatEncryptsTellsTemporalNothingAndClientsAll(t *testing.T) {
	t.Parallel()
	dc := converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), newSealing(t))
	for name, plain := range map[string]bool{"with the plugin": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, fixtureOptions{
				types: map[string]TypeOptions{"alone": {
					Activity: "alone", StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
				}},
				submission: &unwatched,
				connect: func(o *client.Options) {
					o.DataConverter = dc
					o.FailureConverter = temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: dc, EncodeCommonAttributes: true})
				},
				change: func(o *Options) {
					o.DataConverter = dc
					if plain {
						o.FirstLook = time.Hour
					}
				},
			}).reconcile()
			options := worker.Options{}
			if !plain {
				plugin, err := NewPlugin(PluginOptions{Lifecycle: f.lifecycle, Prefix: f.prefix, DataConverter: dc, Logger: f.logger()})
				must(t, err)
				options.Plugins = []worker.Plugin{plugin}
			}
			f.serve(options)

			echoed, reporting := f.create("echo", `{"told":"in-confidence"}`), f.create("report", `{"told":"in-confidence"}`)
			failing := f.create("fail", `{"type":"NO_STOCK","told":"in-confidence"}`)
			alone, lost := f.create("alone", `{"told":"in-confidence"}`), f.create("alone", `{"fail":"BAD_CARD","final":true,"told":"in-confidence"}`)
			f.wantResult(echoed, `{"told":"in-confidence"}`)
			f.wantEnd(reporting, "", false)
			failure, _ := f.wantEnd(failing, "NO_STOCK", true).Failure()
			if failure.Message != "as asked for" {
				t.Errorf("the failure is %+v", failure)
			}
			f.wantResult(alone, `1`)
			failure, _ = f.wantEnd(lost, "BAD_CARD", false).Failure()
			if failure.Message != "as asked for" {
				t.Errorf("the failure is %+v", failure)
			}
			if plain {
				f.wantStream(echoed, "STARTED COMPLETED")
			} else {
				f.wantStream(reporting, "STARTED PROGRESS PROGRESS MESSAGE MESSAGE MESSAGE COMPLETED")
				f.wantStream(alone, "STARTED PROGRESS COMPLETED")
			}
			for _, task := range []taskbridge.Task{echoed, reporting, failing} {
				events := f.client.GetWorkflowHistory(f.ctx, f.prefix+task.ID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
				for events.HasNext() {
					event, err := events.Next()
					must(t, err)
					content, err := event.Marshal()
					must(t, err)
					for _, secret := range []string{"in-confidence", "as asked for", "taskId"} {
						if strings.Contains(string(content), secret) {
							t.Errorf("%s has %q in the clear: %s", event.GetEventType(), secret, event)
						}
					}
				}
			}
		})
	}
}
