package k8sjob

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

// jobTemplate is what the Jobs of a type are made from. It does not change once made.
type jobTemplate struct {
	job       *batchv1.Job
	namespace string
	container string
	ttl       time.Duration
}

func readTemplate(t TypeOptions, o Options) (*jobTemplate, error) {
	return &jobTemplate{job: &batchv1.Job{}, namespace: o.Namespace, container: t.Container, ttl: t.TTL}, nil
}
