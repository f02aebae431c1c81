package k8sjob

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Labels and annotations of Jobs and their pods.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelInstance  = "app.kubernetes.io/instance"
	labelName      = "app.kubernetes.io/name"
	// labelTask is the hash of the task's id, as in the names.
	labelTask = "taskbridge.dev/task"
	// labelRecorded is of Jobs whose end is recorded: "true".
	labelRecorded = "taskbridge.dev/recorded"

	annotationTaskID      = "taskbridge.dev/task-id"
	annotationTaskType    = "taskbridge.dev/task-type"
	annotationTraceparent = "taskbridge.dev/traceparent"
	// annotationCancelRequested is when the cancellation was asked for, RFC 3339,
	// and annotationCancelReason why.
	annotationCancelRequested = "taskbridge.dev/cancel-requested"
	annotationCancelReason    = "taskbridge.dev/cancel-reason"

	managedBy = "taskbridge"
	// ownPrefix is of keys that are ours alone.
	ownPrefix = "taskbridge.dev/"
)

var nameHash = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// hashOf is what stands for a task's id in names and labels: a hundred bits of its
// hash.
func hashOf(taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	return nameHash.EncodeToString(sum[:])[:20]
}

// jobName is the name of a task's Job, and of its Secret and ConfigMap: at most 41
// bytes, and a pod's name adds 6.
func jobName(instance, taskID string) string { return instance + "-" + hashOf(taskID) }

// watchSelector selects the Jobs and pods of an instance.
func watchSelector(instance string) string {
	return labelManagedBy + "=" + managedBy + "," + labelInstance + "=" + instance
}

var instancePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

func checkInstance(instance string) error {
	if !instancePattern.MatchString(instance) {
		return errors.New("must have 1 to 20 of a-z, 0-9 and hyphens, and a letter or digit at both ends")
	}
	return nil
}

func checkNamespace(namespace string) error {
	if len(validation.IsDNS1123Label(namespace)) > 0 {
		return errors.New("must be the name of a namespace: 1 to 63 of a-z, 0-9 and hyphens, and a letter or digit at both ends")
	}
	return nil
}

func checkObjectName(name string) error {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return errors.New("must be the name of an object: 1 to 253 of a-z, 0-9, hyphens and dots, and a letter or digit at both ends of each part")
	}
	return nil
}

// labelValue makes a label's value of a text: what may not be in one becomes a
// hyphen, and what is too long is cut. It may be empty.
func labelValue(text string) string {
	value := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, text)
	value = strings.Trim(value, "-_.")
	if len(value) > validation.LabelValueMaxLength {
		value = strings.Trim(value[:validation.LabelValueMaxLength], "-_.")
	}
	return value
}
