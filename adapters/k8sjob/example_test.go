package k8sjob_test

import (
	"context"
	"fmt"
	"log"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"

	"github.com/taskbridge/taskbridge/adapters/k8sjob"
)

const template = `
apiVersion: batch/v1
kind: Job
spec:
  activeDeadlineSeconds: 3600
  template:
    spec:
      containers:
        - name: render
          image: registry.example.org/render:1.4
          resources:
            limits: {memory: 1Gi}
`

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A host that makes Jobs. Its client is a pretended one here, which has no nodes and
// runs nothing; a real one is made by NewClient, from the pod that the host runs in or
// from a kubeconfig.
func Example() {
	ctx := context.Background()
	store := memory.NewStore(memory.Options{})
	stores := taskbridge.Stores{Tasks: store, Events: store}
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: stores})
	check(err)

	cluster := fake.NewClientset()
	executor, err := k8sjob.New(k8sjob.Options{
		Client:    cluster,
		Namespace: "batch",
		Lifecycle: lifecycle,
		Rows:      store,
		Types:     map[string]k8sjob.TypeOptions{"render": {Template: []byte(template)}},
	})
	check(err)
	defer func() { check(executor.Close()) }()
	executors, err := taskbridge.NewExecutorRouter(map[string]taskbridge.TaskExecutor{"render": executor})
	check(err)
	bridge, err := taskbridge.New(taskbridge.Options{Stores: stores, Executors: executors})
	check(err)

	created, err := bridge.Creation.CreateTask(ctx, taskbridge.Principal{Subject: "alice"}, taskbridge.CreateTaskRequest{
		ClientRequestID: "march", TaskType: "render", Input: []byte(`{"scene":"harbour"}`),
	})
	check(err)

	jobs, err := cluster.BatchV1().Jobs("batch").List(ctx, metav1.ListOptions{})
	check(err)
	for _, job := range jobs.Items {
		fmt.Println("a Job of the task:", job.Annotations["taskbridge.dev/task-id"] == created.Task.ID)
		for _, env := range job.Spec.Template.Spec.Containers[0].Env {
			fmt.Println("finds", env.Name)
		}
	}
	secrets, err := cluster.CoreV1().Secrets("batch").List(ctx, metav1.ListOptions{})
	check(err)
	for _, secret := range secrets.Items {
		fmt.Printf("is handed %s\n", secret.Data["input.json"])
	}
	// Output:
	// a Job of the task: true
	// finds TASKBRIDGE_TASK_ID
	// finds TASKBRIDGE_TASK_TYPE
	// finds TASKBRIDGE_CLAIM
	// finds TASKBRIDGE_INPUT_FILE
	// finds TASKBRIDGE_INPUT
	// is handed {"scene":"harbour"}
}

// What cannot be a task is told in a sentence, before anything is connected to.
func ExampleOptions_Check() {
	store := memory.NewStore(memory.Options{})
	lifecycle, err := taskbridge.NewLocalLifecycle(taskbridge.LifecycleOptions{Stores: taskbridge.Stores{Tasks: store, Events: store}})
	check(err)
	fmt.Println(k8sjob.Options{
		Client: fake.NewClientset(), Namespace: "batch", Lifecycle: lifecycle, Rows: store,
		Types: map[string]k8sjob.TypeOptions{"render": {Template: []byte(`{kind: Job, apiVersion: batch/v1, spec: {parallelism: 8, template: {spec: {containers: [{name: render, image: a}]}}}}`)}},
	}.Check())
	// Output: task type "render": the template has parallelism 8: a task is one pod at a time
}
