package k8sjob

// Keeps the requirements of go.mod until the files that need them are there.
import (
	_ "go.uber.org/goleak"
	_ "k8s.io/api/authorization/v1"
	_ "k8s.io/api/batch/v1"
	_ "k8s.io/api/core/v1"
	_ "k8s.io/client-go/informers"
	_ "k8s.io/client-go/kubernetes/fake"
	_ "k8s.io/client-go/tools/cache"
	_ "k8s.io/client-go/tools/clientcmd"
	_ "k8s.io/client-go/tools/leaderelection"
	_ "k8s.io/client-go/tools/leaderelection/resourcelock"
	_ "k8s.io/client-go/util/workqueue"
	_ "sigs.k8s.io/yaml"

	_ "github.com/taskbridge/taskbridge/core"
)
