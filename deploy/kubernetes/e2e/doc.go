// Package e2e holds the tests of deploy/kubernetes and of examples/k8sjob on a real
// cluster: the manifests as kustomize renders them, the server in a pod with the
// rights that they give to it and no others, and a server beside the cluster.
//
// It is a module of its own, so that what renders and applies manifests is in no
// user's dependencies. "make test-deploy" runs it.
package e2e
