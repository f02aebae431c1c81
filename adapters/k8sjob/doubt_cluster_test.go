package k8sjob

import (
	"errors"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestClusterAPatchThatWasMeantForAnotherJobOfTheNameChangesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("block")})
	task := b.create("")
	b.awaitStream(task, "STARTED")
	job := b.job(task)
	another := job.DeepCopy()
	another.UID = types.UID("00000000-0000-4000-8000-000000000000")
	_, err := b.executor.patchJob(b.ctx, another, map[string]any{"spec": map[string]any{"activeDeadlineSeconds": 1}})
	if !gone(err) || b.job(task).Spec.ActiveDeadlineSeconds != nil {
		t.Errorf("the API server says %v", err)
	}
	b.cancel(task, "")
	b.end(task)
}

func TestClusterATaskThatAPolicyDeniesWaitsForAnotherPolicy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	b := c.newBridge(bridgeOptions{types: c.newTypes("result=1")})
	policies := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	bindings := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}
	policy.Spec.MatchConstraints = &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": c.namespace}},
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{batchv1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"jobs"}},
		}}},
	}
	policy.Spec.Validations = []admissionv1.Validation{{Expression: "false", Message: "not today"}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}
	binding.Spec.PolicyName = policy.Name
	binding.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Deny}
	_, err := policies.Create(c.ctx, policy, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, policies.Delete(c.ctx, policy.Name, metav1.DeleteOptions{})) })
	_, err = bindings.Create(c.ctx, binding, metav1.CreateOptions{})
	must(t, err)
	until(t, "the policy denies a Job", func() bool {
		err := b.executor.CheckTemplates(b.ctx)
		var wrong *InvalidTemplateError
		if errors.As(err, &wrong) {
			t.Fatalf("it makes the template invalid: %v", err)
		}
		return err != nil
	})
	task := b.create("")
	until(t, "it was tried again", func() bool { return b.row(task).Submission.Tries > 2 })
	must(t, bindings.Delete(c.ctx, binding.Name, metav1.DeleteOptions{}))
	b.wantResult(task, "1")
}
