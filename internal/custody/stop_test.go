package custody

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// hooked makes a desk's files come from a function.
func (d *desk) hooked(file func(name string) (counterfoil.Secret, error)) { d.cfg.File = file }

var byOAuth = counterfoil.UpstreamCredential{OAuth: &counterfoil.OAuthProvider{TokenURL: "https://127.0.0.1:1/", ClientID: "c", ClientSecret: "secret"}}

// Stop waits for whoever is asking, and nobody asks afterwards; what is kept still serves.
func TestStopWaitsForWhoAsks(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.provider("p", "echo token-of-crm")
	keeps := with(counterfoil.UpstreamCredential{Exec: "p"})
	d.wantReleased(keeps, "token-of-crm", "exec p")
	asking := make(chan struct{})
	var asked, ended atomic.Int64
	d.hooked(func(string) (counterfoil.Secret, error) {
		asked.Add(1)
		close(asking)
		<-d.base.Done()
		for range 1000 {
			runtime.Gosched()
		}
		ended.Add(1)
		return counterfoil.Secret{}, errors.New("it ended")
	})
	res := with(byOAuth)
	res.Name = "other"
	failed := make(chan error, 1)
	go func() {
		_, err := d.Release(context.Background(), res)
		failed <- err
	}()
	<-asking
	d.Stop()
	if ended.Load() != 1 {
		t.Error("Stop came back while somebody was asking")
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "it ended") {
		t.Errorf("who waited got %v", err)
	}
	d.pass(time.Hour)
	d.wantNot(res, "stopping")
	d.wantNot(keeps, "stopping")
	d.Stop()
	if asked.Load() != 1 {
		t.Error("it was asked after Stop")
	}
}

// A panic while asking is a failure of that try, and shows nothing of what it was about.
func TestPanicWhileAskingIsAnError(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.hooked(func(string) (counterfoil.Secret, error) { panic("s3cr3t-token is broken") })
	res := with(byOAuth)
	d.wantNot(res, "failed within", "s3cr3t")
	if !strings.Contains(d.log.String(), "panic in asking") {
		t.Error("nobody is told")
	}
	d.pass(maxPause)
	d.provider("p", "echo token-of-crm")
	d.wantReleased(with(counterfoil.UpstreamCredential{Exec: "p"}), "token-of-crm", "exec p")
	d.Stop()
}
