package k8sjob

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	yamlnode "go.yaml.in/yaml/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

// jobTemplate is what the Jobs of a type are made from. It does not change once made.
type jobTemplate struct {
	// job is complete but for what is a task's own.
	job       *batchv1.Job
	namespace string
	container string
	// ttl is negative where Jobs stay for ever.
	ttl time.Duration
}

// readTemplate reads and checks the template of a type. Its errors continue the
// words "the template".
func readTemplate(t TypeOptions, o Options) (*jobTemplate, error) {
	job, err := decodeTemplate(t.Template)
	if err != nil {
		return nil, err
	}
	if err := checkTemplate(job, o.Instance); err != nil {
		return nil, err
	}
	template := &jobTemplate{job: job}
	if template.namespace, err = namespaceOf(job, t, o); err != nil {
		return nil, err
	}
	if template.container, err = containerOf(&job.Spec.Template, t.Container); err != nil {
		return nil, err
	}
	if err := checkContainer(job, template.container); err != nil {
		return nil, err
	}
	if template.ttl = t.TTL; t.TTL == 0 {
		template.ttl = defaultTTL
		if seconds := job.Spec.TTLSecondsAfterFinished; seconds != nil {
			template.ttl = time.Duration(*seconds) * time.Second
		}
	}
	completeTemplate(job, template, o.Instance)
	return template, nil
}

// templateKinds decodes what a template may be.
var templateKinds = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(batchv1.SchemeGroupVersion, &batchv1.Job{})
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.PodTemplate{}, &corev1.Pod{})
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decodeTemplate makes a Job of what the template says, and of nothing else.
func decodeTemplate(text []byte) (*batchv1.Job, error) {
	root, err := oneDocument(text)
	if err != nil {
		return nil, err
	}
	data, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	var kind metav1.TypeMeta
	if err := json.Unmarshal(data, &kind); err != nil {
		return nil, errors.New("must be an object")
	}
	prefix := ""
	switch kind {
	case metav1.TypeMeta{}: // a pod template alone
		data = fmt.Appendf(nil, `{"apiVersion":"v1","kind":"PodTemplate","template":%s}`, data)
		prefix = "template."
	case metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, metav1.TypeMeta{APIVersion: "v1", Kind: "PodTemplate"}, metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}:
	default:
		return nil, fmt.Errorf("is of kind %q, apiVersion %q: it must be a Job of batch/v1, a PodTemplate or Pod of v1, or a pod template without a kind", kind.Kind, kind.APIVersion)
	}
	object, _, err := templateKinds.Decode(data, nil, nil)
	if err != nil {
		return nil, decodingError(err, root, prefix)
	}
	switch object := object.(type) {
	case *batchv1.Job:
		return object, nil
	case *corev1.PodTemplate:
		return &batchv1.Job{ObjectMeta: object.ObjectMeta, Spec: batchv1.JobSpec{Template: object.Template}}, nil
	case *corev1.Pod:
		if !equalEmpty(object.Status) {
			return nil, errors.New("has a status: remove what a cluster has added")
		}
		// The namespace is the Job's; all else of a pod's metadata is the pod's.
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace}}
		job.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: object.ObjectMeta, Spec: object.Spec}
		job.Spec.Template.Namespace = ""
		return job, nil
	}
	return nil, fmt.Errorf("is a %T", object)
}

// oneDocument reads the nodes of the only document, for their lines.
func oneDocument(text []byte) (*yamlnode.Node, error) {
	decoder := yamlnode.NewDecoder(bytes.NewReader(text))
	var root, more yamlnode.Node
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("is empty")
		}
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one document")
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yamlnode.MappingNode {
		return nil, errors.New("must be an object")
	}
	return root.Content[0], nil
}

var unknownField = regexp.MustCompile(`^unknown field "(.+)"$`)

// decodingError says which fields are wrong, and in which line.
func decodingError(err error, root *yamlnode.Node, prefix string) error {
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return fmt.Errorf("cannot be read: %w", err)
	}
	var sentences []string
	for _, problem := range strict.Errors() {
		match := unknownField.FindStringSubmatch(problem.Error())
		if match == nil {
			sentences = append(sentences, "cannot be read: "+problem.Error())
			continue
		}
		path := strings.TrimPrefix(match[1], prefix)
		sentence := fmt.Sprintf("has the unknown field %q", path)
		if line := lineOf(root, path); line > 0 {
			sentence += fmt.Sprintf(" in line %d", line)
		}
		sentences = append(sentences, sentence)
	}
	return errors.New(strings.Join(sentences, "; "))
}

var pathStep = regexp.MustCompile(`[^.\[\]]+|\[\d+\]`)

// lineOf returns the line of the key at the path, as in "spec.containers[0].image";
// 0: it is not there.
func lineOf(node *yamlnode.Node, path string) (line int) {
	for _, step := range pathStep.FindAllString(path, -1) {
		if node != nil && node.Kind == yamlnode.AliasNode {
			node = node.Alias
		}
		if node == nil {
			return 0
		}
		if number, ok := strings.CutPrefix(step, "["); ok {
			i, err := strconv.Atoi(strings.TrimSuffix(number, "]"))
			if err != nil || node.Kind != yamlnode.SequenceNode || i >= len(node.Content) {
				return 0
			}
			node, line = node.Content[i], node.Content[i].Line
			continue
		}
		if node.Kind != yamlnode.MappingNode {
			return 0
		}
		var value *yamlnode.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				value, line = node.Content[i+1], node.Content[i].Line
			}
		}
		if node = value; value == nil {
			return 0
		}
	}
	return line
}
