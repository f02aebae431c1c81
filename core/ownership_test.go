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
		refusal := taskbridge.ErrTaskNotFound
		if p.Subject == "" {
			refusal = taskbridge.ErrForbidden
		}
		foreign, missing := h.calls(p, id), h.calls(p, "000-nothing")
		for call, err := range foreign {
			if !errors.Is(err, refusal) || err.Error() != missing[call].Error() {
				t.Errorf("%s as %q: %v, of a missing one %v", call, p.Subject, err, missing[call])
			}
		}
		list, err := h.Query.ListTasks(t.Context(), p, taskbridge.ListTasksRequest{})
		if err != nil && p.Subject != "" || len(list.Tasks) != 0 {
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
		if !errors.Is(err, taskbridge.ErrForbidden) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := denied.Creation.CreateTask(t.Context(), me, taskbridge.CreateTaskRequest{ClientRequestID: "b", TaskType: "work"}); !errors.Is(err, taskbridge.ErrForbidden) {
		t.Errorf("create: %v", err)
	}
	if _, err := denied.Query.ListTasks(t.Context(), me, taskbridge.ListTasksRequest{}); !errors.Is(err, taskbridge.ErrForbidden) {
		t.Errorf("list: %v", err)
	}
}

func TestScopesSayWhatACredentialMayDo(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Ownership = taskbridge.ScopedOwners{} })
	with := func(subject string, scopes ...taskbridge.Scope) taskbridge.Principal {
		return taskbridge.Principal{Subject: subject, Scopes: scopes}
	}
	both := with("me", taskbridge.ScopeRead, taskbridge.ScopeWrite)
	created, err := h.Creation.CreateTask(t.Context(), both, taskbridge.CreateTaskRequest{ClientRequestID: "a", TaskType: "work"})
	h.must(err)
	id := created.Task.ID
	const ok, forbidden, missing = "ok", "forbidden", "missing"
	say := func(err error) string {
		switch {
		case err == nil:
			return ok
		case errors.Is(err, taskbridge.ErrForbidden):
			return forbidden
		case errors.Is(err, taskbridge.ErrTaskNotFound):
			return missing
		}
		return err.Error()
	}
	for _, c := range []struct {
		name                       string
		principal                  taskbridge.Principal
		create, read, cancel, list string
		sees                       int
	}{
		{"owner", both, ok, ok, ok, ok, 1},
		{"owner reading", with("me", taskbridge.ScopeRead), forbidden, ok, forbidden, ok, 1},
		{"owner writing", with("me", taskbridge.ScopeWrite), ok, forbidden, ok, forbidden, 0},
		{"owner without scopes", with("me"), forbidden, forbidden, forbidden, forbidden, 0},
		{"stranger", with("you", taskbridge.ScopeRead, taskbridge.ScopeWrite), ok, missing, missing, ok, 0},
		{"stranger without scopes", with("you"), forbidden, forbidden, forbidden, forbidden, 0},
		{"administrator", with("root", taskbridge.ScopeAdmin), forbidden, ok, ok, ok, 1},
		{"nobody", with("", taskbridge.ScopeAdmin, taskbridge.ScopeRead, taskbridge.ScopeWrite), forbidden, forbidden, forbidden, forbidden, 0},
	} {
		list, err := h.Query.ListTasks(t.Context(), c.principal, taskbridge.ListTasksRequest{})
		if say(err) != c.list || len(list.Tasks) != c.sees {
			t.Errorf("%s: list: %v, %d tasks", c.name, err, len(list.Tasks))
		}
		for call, err := range h.calls(c.principal, id) {
			want := c.read
			if call == "cancel" {
				want = c.cancel
			}
			if say(err) != want {
				t.Errorf("%s: %s: %v, want %s", c.name, call, err, want)
			}
		}
		request := taskbridge.CreateTaskRequest{ClientRequestID: "b", TaskType: "work"}
		request.TaskType = "unknown" // so that nothing is left behind
		_, err = h.Creation.CreateTask(t.Context(), c.principal, request)
		if got := say(err); (got == forbidden) != (c.create == forbidden) {
			t.Errorf("%s: create: %v, want %s", c.name, err, c.create)
		}
	}
}

func TestALiveSubscriptionCanBeCheckedAgainstAnotherPrincipal(t *testing.T) {
	h := newHost(t, atomicStores(), func(o *taskbridge.Options) { o.Ownership = taskbridge.ScopedOwners{} })
	owner := taskbridge.Principal{Subject: "me", Scopes: []taskbridge.Scope{taskbridge.ScopeRead, taskbridge.ScopeWrite}}
	created, err := h.Creation.CreateTask(t.Context(), owner, taskbridge.CreateTaskRequest{ClientRequestID: "a", TaskType: "work"})
	h.must(err)
	sub, err := h.Subscription.Subscribe(t.Context(), owner, taskbridge.SubscribeRequest{TaskID: created.Task.ID})
	h.must(err)
	defer sub.Close()
	for _, c := range []struct {
		principal taskbridge.Principal
		want      bool
	}{
		{owner, true},
		{taskbridge.Principal{Subject: "me"}, false},
		{taskbridge.Principal{Subject: "you", Scopes: owner.Scopes}, false},
		{taskbridge.Principal{Subject: "root", Scopes: []taskbridge.Scope{taskbridge.ScopeAdmin}}, true},
	} {
		if got := sub.Permitted(c.principal); got != c.want {
			t.Errorf("%+v: %v, want %v", c.principal, got, c.want)
		}
	}
}
