package k8sjob

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func waitingFor(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func condition(kind corev1.PodConditionType, status corev1.ConditionStatus, reason string, changed int) corev1.PodCondition {
	return corev1.PodCondition{Type: kind, Status: status, Reason: reason, Message: "m", LastTransitionTime: at(changed)}
}

// pendingPod is a pod that was made at second 10 and has a node since second 20.
func pendingPod(state corev1.ContainerState, conditions ...corev1.PodCondition) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod", CreationTimestamp: at(10)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "work"}}, NodeName: "node"},
		Status: corev1.PodStatus{
			Phase: corev1.PodPending, StartTime: new(at(20)), Conditions: conditions,
			ContainerStatuses: []corev1.ContainerStatus{{Name: "work", State: state}},
		},
	}
}

func TestTroubleOfAPodIsToldByKindAndSinceWhen(t *testing.T) {
	noStart := func(pod *corev1.Pod) *corev1.Pod {
		pod.Status.StartTime, pod.Status.ContainerStatuses = nil, nil
		return pod
	}
	afterInit := pendingPod(waitingFor("ImagePullBackOff", "m"), condition(corev1.PodInitialized, corev1.ConditionTrue, "", 300))
	ofInit := pendingPod(waitingFor("PodInitializing", ""))
	ofInit.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "first", State: exited(0, "Completed", "")},
		{Name: "second", State: waitingFor("ErrImagePull", "m")},
	}
	// sidecar adds a sidecar that has crashed, before the init container "fetch".
	sidecar := func(pod *corev1.Pod, fetch corev1.ContainerState) *corev1.Pod {
		pod.Spec.InitContainers = []corev1.Container{{Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}, {Name: "fetch"}}
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{
			{Name: "proxy", State: waitingFor("CrashLoopBackOff", "m")}, {Name: "fetch", State: fetch},
		}
		return pod
	}
	besideInit := sidecar(pendingPod(waitingFor("PodInitializing", "")), corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(21)}})
	afterFetch := sidecar(pendingPod(waitingFor("PodInitializing", "")), exited(0, "Completed", ""))
	helper := pendingPod(exited(0, "Completed", ""))
	helper.Status.ContainerStatuses = append(helper.Status.ContainerStatuses, corev1.ContainerStatus{Name: "helper", State: waitingFor("ErrImagePull", "m")})
	notReady := condition(corev1.PodReadyToStartContainers, corev1.ConditionFalse, "", 20)
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want *trouble
	}{
		"none":             {pendingPod(waitingFor("ContainerCreating", "")), nil},
		"no node takes it": {noStart(pendingPod(waitingFor("", ""), condition(corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonUnschedulable, 12))), &trouble{noticeUnschedulable, CodeUnschedulable, "no node takes the pod: m", true, at(12).Unix(), 0, false}},
		"held by a queue":  {noStart(pendingPod(waitingFor("", ""), condition(corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonSchedulingGated, 12))), nil},
		"image":            {pendingPod(waitingFor("ErrImageNeverPull", "m")), &trouble{noticeImage, CodeImage, `the image cannot be had: ErrImageNeverPull of container "work": m`, false, at(20).Unix(), 0, false}},
		"image after containers that took their time":           {afterInit, &trouble{noticeImage, CodeImage, `the image cannot be had: ImagePullBackOff of container "work": m`, false, at(300).Unix(), 0, false}},
		"image of an init container":                            {ofInit, &trouble{noticeImage, CodeImage, `the image cannot be had: ErrImagePull of container "second": m`, false, at(50).Unix(), 0, false}},
		"a sidecar that crashes while an init container works":  {besideInit, nil},
		"a sidecar that crashes after an init container worked": {afterFetch, &trouble{noticeConfig, CodeConfig, `the container cannot be made: CrashLoopBackOff of container "proxy": m`, false, at(50).Unix(), 0, false}},
		"image of another container when the work has ended":    {helper, &trouble{noticeImage, CodeImage, `the image cannot be had: ErrImagePull of container "helper": m`, false, at(50).Unix(), 0, true}},
		"configuration": {pendingPod(waitingFor("CreateContainerConfigError", "m")), &trouble{noticeConfig, CodeConfig, `the container cannot be made: CreateContainerConfigError of container "work": m`, false, at(20).Unix(), 0, false}},
		"volume":        {pendingPod(waitingFor("ContainerCreating", ""), notReady), &trouble{noticeConfig, CodeConfig, "the pod's containers cannot be made yet: a volume (a Secret, ConfigMap or claim that is not there, say) or its network is not ready", false, at(20).Unix(), mountQuiet, false}},
	} {
		t.Run(name, func(t *testing.T) {
			got := levelOfPod(test.pod, nil).trouble
			switch {
			case (got == nil) != (test.want == nil):
				t.Errorf("%+v, want %+v", got, test.want)
			case got != nil && *got != *test.want:
				t.Errorf("%+v, want %+v", *got, *test.want)
			}
		})
	}
}

func TestAPodThatRunsHasEndedOrGoesIsInNoTrouble(t *testing.T) {
	going := pendingPod(waitingFor("ErrImagePull", ""))
	going.DeletionTimestamp = new(at(30))
	running := pendingPod(corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(21)}})
	running.Status.ContainerStatuses = append(running.Status.ContainerStatuses, corev1.ContainerStatus{Name: "other", State: waitingFor("ErrImagePull", "")})
	ended := pendingPod(waitingFor("ErrImagePull", ""))
	ended.Status.Phase = corev1.PodFailed
	for name, pod := range map[string]*corev1.Pod{"going": going, "running": running, "ended": ended} {
		if got := levelOfPod(pod, nil).trouble; got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestTroubleWithMakingAPodCountsFromWhenItWasOwed(t *testing.T) {
	job := &jobLevel{created: at(0).Unix(), started: at(5).Unix()}
	quota := &eventLevel{message: `Error creating: pods "p" is forbidden: exceeded quota: q`, last: at(100).Unix()}
	denied := &eventLevel{message: `Error creating: pods "p" is forbidden: error looking up service account`, last: at(100).Unix()}
	over := &podLevel{created: at(20).Unix(), phase: corev1.PodFailed, end: &containerEnd{finished: at(40).Unix()}}
	for name, test := range map[string]struct {
		job     jobLevel
		pods    []*podLevel
		left    []*podLevel
		warning *eventLevel
		code    string
		since   metav1.Time
	}{
		"no warning":                     {*job, nil, nil, nil, "", at(0)},
		"quota":                          {*job, nil, nil, quota, CodeQuota, at(5)},
		"not allowed":                    {*job, nil, nil, denied, CodeConfig, at(5)},
		"a pod there":                    {*job, []*podLevel{over, {created: at(50).Unix()}}, nil, quota, "", at(0)},
		"after a pod":                    {*job, []*podLevel{over}, nil, quota, CodeQuota, at(40)},
		"not started by the cluster yet": {jobLevel{created: at(0).Unix()}, nil, nil, quota, "", at(0)},
		"after a pod that is gone":       {*job, nil, []*podLevel{{created: at(50).Unix()}}, quota, CodeQuota, at(50)},
		"a warning of before a pod that is gone": {
			*job, nil, []*podLevel{{created: at(110).Unix(), phase: corev1.PodRunning}}, quota, "", at(0),
		},
		"a warning of old": {*job, []*podLevel{over}, nil, &eventLevel{message: "exceeded quota", last: at(30).Unix()}, "", at(0)},
		"suspended":        {jobLevel{suspended: true}, nil, nil, quota, "", at(0)},
		"going":            {jobLevel{deleting: true}, nil, nil, quota, "", at(0)},
	} {
		got := troubleOfCreation(&test.job, test.pods, test.left, test.warning)
		switch {
		case test.code == "" && got != nil:
			t.Errorf("%s: %+v", name, got)
		case test.code != "" && (got == nil || got.code != test.code || got.since != test.since.Unix()):
			t.Errorf("%s: %+v, want %s since %d", name, got, test.code, test.since.Unix())
		}
	}
}

func TestANodeSeemsLostWhenItsPodIsNotReadyAndNobodySaysWhy(t *testing.T) {
	runningPod := func(conditions ...corev1.PodCondition) *corev1.Pod {
		pod := pendingPod(corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(21)}}, conditions...)
		pod.Status.Phase = corev1.PodRunning
		return pod
	}
	ready := func(status corev1.ConditionStatus, reason string) corev1.PodCondition {
		return condition(corev1.PodReady, status, reason, 100)
	}
	containersReady := condition(corev1.ContainersReady, corev1.ConditionTrue, "", 22)
	going := runningPod(ready(corev1.ConditionTrue, ""), containersReady)
	going.DeletionTimestamp = new(at(200))
	over := runningPod(ready(corev1.ConditionFalse, "PodFailed"))
	over.Status.Phase, over.DeletionTimestamp = corev1.PodFailed, new(at(200))
	noNode := runningPod()
	noNode.Spec.NodeName, noNode.DeletionTimestamp = "", new(at(200))
	for name, test := range map[string]struct {
		pod   *corev1.Pod
		since int64
	}{
		"well":                       {runningPod(ready(corev1.ConditionTrue, ""), containersReady), 0},
		"marked by the controller":   {runningPod(ready(corev1.ConditionFalse, ""), containersReady), at(100).Unix()},
		"a readiness probe":          {runningPod(ready(corev1.ConditionFalse, "ContainersNotReady"), condition(corev1.ContainersReady, corev1.ConditionFalse, "ContainersNotReady", 100)), 0},
		"a readiness gate":           {runningPod(ready(corev1.ConditionFalse, "ReadinessGatesNotReady"), containersReady), 0},
		"told to stop":               {going, at(200).Unix()},
		"over":                       {over, 0},
		"told to stop, without node": {noNode, 0},
	} {
		got := levelOfPod(test.pod, nil)
		if got.lostSince != test.since {
			t.Errorf("%s: lost since %d, want %d", name, got.lostSince, test.since)
		}
		if late := time.Unix(test.since+lostQuiet, 0); test.since > 0 && (got.lost(late.Add(-time.Second)) || !got.lost(late)) {
			t.Errorf("%s: not lost from %s on", name, late)
		}
	}
}

func TestTextIsCutAtAWholeRune(t *testing.T) {
	for text, want := range map[string]string{"äbc": "äbc", "aäbc": "aäb…", "aäää": "aä…", "\xff\xff": "\uFFFD"} {
		if got := cut(text, 4); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
