package e2e

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// render returns what kustomize makes of a folder, in the order in which it is to be
// applied.
func render(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy
	rendered, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	must(t, err)
	objects := make([]*unstructured.Unstructured, 0, rendered.Size())
	for _, resource := range rendered.Resources() {
		fields, err := resource.Map()
		must(t, err)
		objects = append(objects, &unstructured.Unstructured{Object: fields})
	}
	return objects
}

// typed reads the object of a kind, of which there must be one, strictly: a field that
// Kubernetes does not know is an error.
func typed[T runtime.Object](t *testing.T, objects []*unstructured.Unstructured, into T) T {
	t.Helper()
	kinds, _, err := scheme.Scheme.ObjectKinds(into)
	must(t, err)
	found := false
	for _, object := range objects {
		if !slices.Contains(kinds, object.GroupVersionKind()) {
			continue
		}
		if found {
			t.Fatalf("there are two of %v", kinds)
		}
		found = true
		must(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true))
	}
	if !found {
		t.Fatalf("there is no %v", kinds)
	}
	return into
}

func TestTheManifestsLetOneServerAloneHaveTheData(t *testing.T) {
	for _, folder := range []string{"base", "ephemeral"} {
		t.Run(folder, func(t *testing.T) {
			objects := render(t, root(t, "deploy", "kubernetes", folder))
			deployment := typed(t, objects, &appsv1.Deployment{}).Spec
			if *deployment.Replicas != 1 || deployment.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
				t.Errorf("%d replicas, strategy %s", *deployment.Replicas, deployment.Strategy.Type)
			}
			claims := 0
			for _, object := range objects {
				if object.GetKind() == "PersistentVolumeClaim" {
					claims++
				}
			}
			data := deployment.Template.Spec.Volumes[0]
			switch folder {
			case "base":
				if claims != 1 || data.PersistentVolumeClaim == nil {
					t.Errorf("%d claims, the data in %+v", claims, data)
				}
			default:
				if claims != 0 || data.EmptyDir == nil || data.PersistentVolumeClaim != nil {
					t.Errorf("%d claims, the data in %+v", claims, data)
				}
			}
		})
	}
}

func TestTheServersPodIsConfinedAsPodSecuritysRestrictedAsks(t *testing.T) {
	pod := typed(t, render(t, root(t, "deploy", "kubernetes", "base")), &appsv1.Deployment{}).Spec.Template.Spec
	if s := pod.SecurityContext; !*s.RunAsNonRoot || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod has %+v", s)
	}
	for _, container := range pod.Containers {
		s := container.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("the container has %+v", s)
		}
		if container.LivenessProbe == nil || container.ReadinessProbe == nil || container.StartupProbe == nil {
			t.Error("a probe is missing")
		}
	}
}

func TestTheConfigurationIsMountedUnderTheNameThatItsContentGivesIt(t *testing.T) {
	objects := render(t, root(t, "deploy", "kubernetes", "base"))
	configuration := typed(t, objects, &corev1.ConfigMap{})
	for _, volume := range typed(t, objects, &appsv1.Deployment{}).Spec.Template.Spec.Volumes {
		if volume.ConfigMap != nil && volume.ConfigMap.Name != configuration.Name {
			t.Errorf("the pod mounts %s, the ConfigMap is called %s", volume.ConfigMap.Name, configuration.Name)
		}
	}
	if configuration.Name == "taskbridge" || configuration.Data["taskbridge.yaml"] == "" || configuration.Data["hello.yaml"] == "" {
		t.Errorf("%s has %d files", configuration.Name, len(configuration.Data))
	}
}
