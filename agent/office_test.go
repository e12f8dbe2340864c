package agent_test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/resource"
)

// An office is the issuer's own pages: tasks, rotations and leaks, behind the real
// verifier. What is not atomic or a knob is guarded by the world's lock.
type office struct {
	w     *world
	tasks map[string]agent.Task
	asked []map[string]any // bodies, in their order
	leaks []string

	lose   string           // the end of a path whose next answer is lost, after it was done
	refuse counterfoil.Code // of the next request to rotate
	fault  int              // status of the next request to rotate, before it is done
}

func newOffice(t *testing.T) *office {
	t.Helper()
	w := newWorld(t, nil)
	w.office = &office{w: w, tasks: map[string]agent.Task{}}
	return w.office
}

// open puts a task there that is open.
func (o *office) open(id string) string {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.tasks[id] = agent.Task{ID: id, Agent: "payroll", Opener: "payroll", Purpose: "test", State: counterfoil.TaskOpen, Expires: o.w.now().Add(time.Hour)}
	return id
}

// close ends a task behind everybody's back.
func (o *office) close(id string, to counterfoil.TaskState) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	task := o.tasks[id]
	task.State = to
	o.tasks[id] = task
}

func (o *office) serve(rw http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/id")
	if path == "/oauth/leaked" {
		b, _ := io.ReadAll(r.Body)
		o.w.mu.Lock()
		o.leaks = append(o.leaks, string(b))
		o.w.mu.Unlock()
		rw.WriteHeader(http.StatusAccepted)
		return
	}
	caller, err := o.w.verifier.Check(r.Context(), resource.Request{Method: r.Method, URL: o.w.srv.URL + r.URL.Path, Resource: o.w.issuer, Header: r.Header})
	if err != nil {
		problem(rw, counterfoil.CodeOf(err).Wire().Status, counterfoil.CodeOf(err), err.Error())
		return
	}
	var body map[string]any
	if r.Method == http.MethodPost {
		if err := json.UnmarshalRead(r.Body, &body); err != nil {
			problem(rw, 400, counterfoil.PayloadMalformed, err.Error())
			return
		}
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if body != nil {
		o.asked = append(o.asked, body)
	}
	done := func(status int, v any) {
		if o.lose != "" && strings.HasSuffix(path, o.lose) {
			o.lose = ""
			panic(http.ErrAbortHandler)
		}
		writeJSON(rw, status, v)
	}
	if path == "/keys/rotate" {
		o.rotate(rw, caller, r, body, done)
		return
	}
	o.task(rw, r, path, body, done)
}

func (o *office) task(rw http.ResponseWriter, r *http.Request, path string, body map[string]any, done func(int, any)) {
	id, verb, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/tasks"), "/"), "/")
	task, ok := o.tasks[id]
	switch {
	case path == "/tasks" && r.Method == http.MethodPost:
		purpose, _ := body["purpose"].(string)
		task = agent.Task{ID: counterfoil.NewID("tsk_"), Agent: "payroll", Opener: "payroll", Purpose: purpose, State: counterfoil.TaskOpen, Expires: o.w.now().Add(time.Hour)}
		o.tasks[task.ID] = task
		done(201, task)
	case path == "/tasks":
		list := []agent.Task{}
		for _, t := range o.tasks {
			list = append(list, t)
		}
		done(200, map[string]any{"tasks": list})
	case !ok:
		problem(rw, 404, counterfoil.ToolUnknown, "there is no such task")
	case verb == "":
		done(200, task)
	case task.State != counterfoil.TaskOpen:
		problem(rw, 409, counterfoil.TaskClosed, "the task is closed")
	default:
		task.State = map[string]counterfoil.TaskState{"complete": counterfoil.TaskCompleted, "cancel": counterfoil.TaskCancelled}[verb]
		task.Reason, _ = body["reason"].(string)
		o.tasks[id] = task
		done(200, task)
	}
}

// rotate checks what a real issuer checks of both proofs.
func (o *office) rotate(rw http.ResponseWriter, caller counterfoil.Caller, r *http.Request, body map[string]any, done func(int, any)) {
	if o.fault != 0 {
		status := o.fault
		o.fault = 0
		problem(rw, status, counterfoil.StoreUnavailable, "the disk is away")
		return
	}
	inner, _ := body["proof"].(string)
	unverified, err := credential.ParseProof([]string{inner})
	var p credential.Proof
	if err == nil {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "DPoP ")
		p, err = unverified.Check(credential.ProofRequest{Method: http.MethodPost, URL: o.w.issuer + "/keys/rotate", TokenHash: credential.TokenHash(token)}, o.w.now())
	}
	if err == nil && o.refuse != "" {
		err = counterfoil.Refuse(o.refuse, "refused by the test")
	}
	if err == nil && !o.w.taken(p.JKT).IsZero() {
		err = counterfoil.Refuse(counterfoil.KeyInUse, "somebody has this key")
	}
	if err != nil {
		problem(rw, 400, counterfoil.CodeOf(err), err.Error())
		return
	}
	if overlap, _ := body["overlap"].(float64); overlap == 0 {
		delete(o.w.keys, caller.JKT)
	}
	o.w.keys[p.JKT] = p.Key
	done(200, map[string]any{"agent": caller.Agent, "instance": caller.Instance, "jkt": p.JKT, "previous": map[string]any{"jkt": caller.JKT, "until": o.w.now().UTC()}})
}

func problem(rw http.ResponseWriter, status int, code counterfoil.Code, detail string) {
	b, _ := json.Marshal(map[string]any{"code": code, "detail": detail, "request_id": "req_3"})
	rw.Header().Set("Content-Type", counterfoil.ProblemMedia)
	rw.WriteHeader(status)
	_, _ = rw.Write(b)
}

// keyFile saves a new key that is enrolled.
func (o *office) keyFile(t *testing.T) (string, *credential.Signer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.key")
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.SaveKey(path, key); err != nil {
		t.Fatal(err)
	}
	signer, err := agent.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.keys[signer.Public().Thumbprint()] = signer.Public()
	return path, signer
}

// works reports whether a key file gets a token.
func (o *office) works(t *testing.T, path string) bool {
	t.Helper()
	signer, err := agent.LoadKey(path)
	if err != nil {
		return false
	}
	c := o.w.config()
	c.Signer = signer
	tr, err := agent.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tr.Token(context.Background())
	return err == nil
}

// awayFrom answers token requests beyond the first n with a fault.
func (o *office) awayFrom(n int) func(http.ResponseWriter, *http.Request) bool {
	asked := 0
	return func(rw http.ResponseWriter, _ *http.Request) bool {
		o.w.mu.Lock()
		defer o.w.mu.Unlock()
		if asked++; asked <= n-1 {
			return false
		}
		refuseToken(rw, 503, "temporarily_unavailable", counterfoil.StoreUnavailable, "away")
		return true
	}
}
