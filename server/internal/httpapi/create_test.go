package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestOneKeyFromThreeHundredRequestsMakesOneTask(t *testing.T) {
	f := serve(t)
	f.client.Transport.(*http.Transport).MaxIdleConnsPerHost = 300
	const requests = 300
	const body = `{"clientRequestId":"the one","taskType":"scripted","input":{"a":[1,2,3]}}`
	var (
		wg       sync.WaitGroup
		gate     = make(chan struct{})
		mu       sync.Mutex
		statuses = map[int]int{}
		ids      = map[string]int{}
	)
	for range requests {
		wg.Go(func() {
			<-gate
			response, err := f.client.Post(f.url+"/api/v1/tasks", "application/json", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			content, err := io.ReadAll(response.Body)
			if err != nil {
				t.Error(err)
				return
			}
			object := reply{response, content}.object(t)
			mu.Lock()
			defer mu.Unlock()
			statuses[response.StatusCode]++
			ids[fmt.Sprint(object["taskId"])]++
		})
	}
	close(gate)
	wg.Wait()
	if statuses[http.StatusCreated] != 1 || statuses[http.StatusOK] != requests-1 || len(ids) != 1 {
		t.Fatalf("statuses %v, ids %v", statuses, ids)
	}
	for id := range ids {
		if n := f.executor.Submits(id); n != 1 {
			t.Errorf("SubmitTask was called %d times", n)
		}
	}
	if rows := f.expect(http.StatusOK, "GET", "/api/v1/tasks", "")["tasks"].([]any); len(rows) != 1 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestTheSameContentInAnotherFormIsTheSameRequest(t *testing.T) {
	f := serve(t)
	id := f.expect(http.StatusCreated, "POST", "/api/v1/tasks",
		`{"clientRequestId":"k","taskType":"scripted","input":{"a":1,"b":[1.50,"x"]},"metadata":{"m":1}}`)["taskId"]
	for _, body := range []string{
		`{"taskType":"scripted","clientRequestId":"k","metadata":{"m":2},"input":{"b":[1.5,"\u0078"],"a":1e0}}`,
		`{"taskType":"scripted","clientRequestId":"k","metadata":null,"input":{"b":[15e-1,"x"],"a":1.0}}`,
		`{"taskType":"scripted","clientRequestId":"k","input":{"b":[1.5,"x"],"a":1}}`,
	} {
		if again := f.expect(http.StatusOK, "POST", "/api/v1/tasks", body); again["taskId"] != id {
			t.Errorf("%s: %v", body, again)
		}
	}
	for _, body := range []string{
		`{"clientRequestId":"k","taskType":"scripted","input":{"a":1,"b":["x",1.5]}}`,
		`{"clientRequestId":"k","taskType":"scripted"}`,
	} {
		f.do("POST", "/api/v1/tasks", body).checkProblem(t, http.StatusConflict, codeConflict)
	}
	if n := f.executor.Submits(id.(string)); n != 1 {
		t.Errorf("SubmitTask was called %d times", n)
	}
}

func TestTheIdempotencyKeyHeaderIsAnotherWayToGiveTheKey(t *testing.T) {
	f := serve(t)
	for header, key := range map[string]string{
		"Idempotency-Key: bare-1":           "bare-1",
		`Idempotency-Key: "quoted"`:         "quoted",
		`Idempotency-Key: "a \"b\" \\ c"`:   `a "b" \ c`,
		`Idempotency-Key: in the "middle"`:  `in the "middle"`,
		"Idempotency-Key: gr\u00fc\u00dfe ": "gr\u00fc\u00dfe",
	} {
		created := f.expect(http.StatusCreated, "POST", "/api/v1/tasks", `{"taskType":"scripted"}`, header)
		if created["clientRequestId"] != key {
			t.Errorf("%s: %v", header, created)
		}
		body := fmt.Sprintf(`{"taskType":"scripted","clientRequestId":%q}`, key)
		for _, headers := range [][]string{{header}, nil} {
			again := f.expect(http.StatusOK, "POST", "/api/v1/tasks", body, headers...)
			if again["taskId"] != created["taskId"] {
				t.Errorf("%s: %v, at first %v", header, again, created)
			}
		}
	}
}

func TestAbsentAndNullInputAndMetadataAreEmptyObjects(t *testing.T) {
	f := serve(t)
	for _, members := range []string{"", `,"input":null,"metadata":null`, `,"input":{},"metadata":{}`} {
		created := f.do("POST", "/api/v1/tasks", `{"clientRequestId":"k","taskType":"scripted"`+members+`}`)
		id := created.object(t)["taskId"].(string)
		row := f.do("GET", "/api/v1/tasks/"+id, "")
		if body := string(row.body); !strings.Contains(body, `"input":{}`) || !strings.Contains(body, `"metadata":{}`) {
			t.Errorf("%q: %s", members, body)
		}
	}
	if n := len(f.executor.Submitted()); n != 1 {
		t.Errorf("%d tasks", n)
	}
}

func TestInputOfEveryKindComesBackAsItWentInOrIsRefused(t *testing.T) {
	f := serve(t)
	for i, input := range []string{
		`{"n":1e999999999}`, `{"n":-0.0000000000000000000000000000000001e-99999999}`,
		`{"n":` + strings.Repeat("9", 100_000) + `}`,
		`{"s":"\ud800","t":"\u0000","u":"\u2028"}`,
		`{"a":` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + `}`,
		`{"":{"":{"":null}}}`, `{"a":1,"a":2}`, "{\t\"a\"\r\n:\u00201}", `{"__proto__":{},"constructor":1}`,
	} {
		body := fmt.Sprintf(`{"clientRequestId":"input-%d","taskType":"scripted","input":%s}`, i, input)
		r := f.do("POST", "/api/v1/tasks", body)
		if r.StatusCode != http.StatusCreated && (r.StatusCode < 400 || r.StatusCode > 499) {
			t.Errorf("%.60s: %d %s", input, r.StatusCode, r.body)
		}
		if r.StatusCode == http.StatusCreated {
			again := f.do("POST", "/api/v1/tasks", body)
			if again.StatusCode != http.StatusOK {
				t.Errorf("%.60s again: %d %s", input, again.StatusCode, again.body)
			}
			id := r.object(t)["taskId"].(string)
			if row := f.do("GET", "/api/v1/tasks/"+id, ""); row.StatusCode != http.StatusOK {
				t.Errorf("%.60s: row %d %.200s", input, row.StatusCode, row.body)
			}
		}
	}
}

func TestATaskWhoseExecutorIsAwayIsAccepted(t *testing.T) {
	f := serve(t)
	f.executor.OnSubmit(func(context.Context, taskbridge.Task) error { return io.ErrUnexpectedEOF })
	created := f.expect(http.StatusCreated, "POST", "/api/v1/tasks", `{"clientRequestId":"k","taskType":"scripted"}`)
	if created["status"] != "ACCEPTED" {
		t.Errorf("created %v", created)
	}
}
