package taskbridge_test

import (
	"errors"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// every call that names a task, by what it answers to a principal.
func (h *host) calls(p taskbridge.Principal, id string) map[string]error {
	ctx := h.t.Context()
	errs := map[string]error{}
	_, errs["get"] = h.Query.GetTask(ctx, p, id, 0)
	_, errs["poll"] = h.Polling.PollEvents(ctx, p, taskbridge.PollRequest{TaskID: id})
	sub, err := h.Subscription.Subscribe(ctx, p, taskbridge.SubscribeRequest{TaskID: id})
	if errs["subscribe"] = err; err == nil {
		sub.Close()
	}
	_, _, errs["cancel"] = h.Cancellation.CancelTask(ctx, p, id, "")
	return errs
}

func TestAForeignTaskCannotBeToldFromAMissingOne(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	for _, p := range []taskbridge.Principal{{Subject: "you"}, {Subject: ""}, {Subject: "me "}, {Subject: "ME"}} {
		foreign, missing := h.calls(p, id), h.calls(p, "000-nothing")
		for call, err := range foreign {
			if !errors.Is(err, taskbridge.ErrTaskNotFound) || err.Error() != missing[call].Error() {
				t.Errorf("%s as %q: %v, of a missing one %v", call, p.Subject, err, missing[call])
			}
		}
		list, err := h.Query.ListTasks(t.Context(), p, taskbridge.ListTasksRequest{})
		if err != nil || len(list.Tasks) != 0 {
			t.Errorf("list as %q: %v, %v", p.Subject, list, err)
		}
	}
	if row := h.row(id); !row.Cancellation.RequestedAt.IsZero() {
		t.Error("a stranger has cancelled the task")
	}
	for call, err := range h.calls(me, id) {
		if err != nil {
			t.Errorf("%s as the owner: %v", call, err)
		}
	}
	if _, err := h.Creation.CreateTask(t.Context(), taskbridge.Principal{}, taskbridge.CreateTaskRequest{ClientRequestID: "b", TaskType: "work"}); !errors.Is(err, taskbridge.ErrForbidden) {
		t.Errorf("create without a subject: %v", err)
	}
}

func TestTheSameKeyOfAnotherOwnerIsAnotherTask(t *testing.T) {
	h := newHost(t, atomicStores())
	mine := h.create("a")
	other, err := h.Creation.CreateTask(t.Context(), taskbridge.Principal{Subject: "you"}, taskbridge.CreateTaskRequest{ClientRequestID: "a", TaskType: "work"})
	if err != nil || other.Deduplicated || other.Task.ID == mine {
		t.Errorf("%+v, %v", other, err)
	}
}

func TestDenyAllAllowsNothing(t *testing.T) {
	h := newHost(t, atomicStores())
	id := h.create("a")
	denied := newHost(t, h.stores, func(o *taskbridge.Options) { o.Ownership = taskbridge.DenyAll{} })
	for call, err := range denied.calls(me, id) {
		if !errors.Is(err, taskbridge.ErrTaskNotFound) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := denied.Creation.CreateTask(t.Context(), me, taskbridge.CreateTaskRequest{ClientRequestID: "b", TaskType: "work"}); !errors.Is(err, taskbridge.ErrForbidden) {
		t.Errorf("create: %v", err)
	}
	list, err := denied.Query.ListTasks(t.Context(), me, taskbridge.ListTasksRequest{})
	if err != nil || len(list.Tasks) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
}

// adminPolicy lets one subject see everything.
type adminPolicy struct{ taskbridge.OwnerOnly }

func (adminPolicy) MayAccess(p taskbridge.Principal, owner string, permission taskbridge.Permission) bool {
	return p.Subject == "admin" || (taskbridge.OwnerOnly{}).MayAccess(p, owner, permission)
}
func (adminPolicy) MayListAll(p taskbridge.Principal) bool { return p.Subject == "admin" }

func TestAPolicyMayLetAnAdministratorSeeAll(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Ownership = adminPolicy{} })
	id := h.create("a")
	for call, err := range h.calls(taskbridge.Principal{Subject: "admin"}, id) {
		if err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
	list, err := h.Query.ListTasks(t.Context(), taskbridge.Principal{Subject: "admin"}, taskbridge.ListTasksRequest{})
	if err != nil || len(list.Tasks) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
}
