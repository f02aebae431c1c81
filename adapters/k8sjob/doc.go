// Package k8sjob runs tasks as Kubernetes Jobs.
//
// A task type is a Job template, a task one Job of one pod. What the pod prints,
// how its container ends and what happens to the Job become the task's events;
// see the module's README.
package k8sjob
