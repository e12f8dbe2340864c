package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
)

// What the agent tries to pay in the demo.
const (
	payAcme    = `{"to":"acme","amount":100,"currency":"EUR"}`
	payGlobex  = `{"to":"globex","amount":100,"currency":"EUR"}`
	payInitech = `{"to":"initech","amount":9000,"currency":"EUR"}`
	refundAcme = `{"to":"acme","amount":12.5,"currency":"EUR"}`
)

// enrolPeople gives three of the four people their passkeys.
func (d *demo) enrolPeople() error {
	d.people = map[string]*demoPerson{}
	for _, name := range []string{"ana", "bo", "cy"} {
		p, err := newDemoPerson(d.ctx, d.daemon.ManagementURL(), name, d.codes[name])
		if err != nil {
			return err
		}
		d.people[name] = p
	}
	d.tell("People enrol passkeys", outcome{
		tried:    "ana, bo and cy each open the page of their one-time code, make a passkey and log in with it",
		want:     allowed,
		got:      allowed,
		answered: "three passkeys, whose public keys are in the ledger",
		why:      "apply printed a code for each new person; a code works once, and a first passkey counts at once",
	})
	return nil
}

// payments says what the bank's books show.
func (d *demo) payments() (int, string, error) {
	paid, err := d.bank.Payments(d.ctx)
	if err != nil {
		return 0, "", err
	}
	return len(paid), "the bank's books show " + counted(len(paid), "payment", "payments"), nil
}

// tellPay tells a call of the bank's that must leave so many payments in its books.
func (d *demo) tellPay(title, tried string, r reply, want counterfoil.Code, books int, why string) error {
	n, shown, err := d.payments()
	if err != nil {
		return err
	}
	if n != books {
		r.code = "paid"
	}
	d.tell(title, outcome{tried: tried, want: want, got: r.code, answered: r.text, why: why + "; " + shown})
	return nil
}

// payout is the life of one approval, from the refusal that asks for it to the
// refusal to run it twice.
func (d *demo) payout() error {
	r, err := d.call(d.agent, "pay", payAcme, "")
	if err != nil {
		return err
	}
	id := r.approval
	if err := d.tellPay("A payout waits for people", "bank/pay "+payAcme, r, counterfoil.ApprovalRequired, 0,
		"class payout is irreversible: a key alone never moves money, two people have to say yes to exactly this payment"); err != nil {
		return err
	}
	if id == "" {
		return errors.New("the payout did not ask for an approval")
	}
	for _, step := range []func(string) error{d.oneIsNotEnough, d.ownerRefused, d.swapped, d.runsOnce} {
		if err := step(id); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) oneIsNotEnough(id string) error {
	if err := d.yes("bo", id); err != nil {
		return err
	}
	r, err := d.call(d.agent, "pay", payAcme, "")
	if err != nil {
		return err
	}
	return d.tellPay("One person is not enough", "bo says yes with a passkey; the agent repeats the call", r, counterfoil.ApprovalPending, 0,
		"the repeated call finds its approval and asks for no second one; it still needs another person")
}

func (d *demo) ownerRefused(id string) error {
	r, err := d.people["ana"].decide(d.ctx, id, counterfoil.DecisionApprove, "")
	if err != nil {
		return err
	}
	d.tell("The agent's owner may not be that person", outcome{
		tried: "ana, who owns the agent and is in the approvers' group, says yes", want: counterfoil.ApproverNotEligible, got: r.code, answered: r.text,
		why: "the owner answers for the agent, so somebody else has to look; for irreversible classes no setting changes that",
	})
	return nil
}

func (d *demo) swapped(id string) error {
	if err := d.yes("cy", id); err != nil {
		return err
	}
	r, err := d.call(d.agent, "pay", payGlobex, id)
	if err != nil {
		return err
	}
	return d.tellPay("Another payee under a signed approval", "cy says yes, which makes two; the agent names the approval and sends bank/pay "+payGlobex,
		r, counterfoil.ApprovalMismatch, 0, "the people signed a digest of the payment that they read, and this one has another")
}

func (d *demo) runsOnce(id string) error {
	r, err := d.call(d.agent, "pay", payAcme, id)
	if err != nil {
		return err
	}
	if err := d.tellPay("What two people signed runs", "bank/pay "+payAcme+", as it was signed", r, allowed, 1,
		"both assertions were verified once more, and the approval was used up before the call went out"); err != nil {
		return err
	}
	if r, err = d.call(d.agent, "pay", payAcme, id); err != nil {
		return err
	}
	return d.tellPay("It runs once", "the same call again", r, counterfoil.ApprovalSpent, 1, "an approval is good for one call")
}

// yes lets one of the people say yes.
func (d *demo) yes(name, id string) error {
	r, err := d.people[name].decide(d.ctx, id, counterfoil.DecisionApprove, "")
	if err == nil && r.code != allowed {
		err = fmt.Errorf("%s said yes and was refused: %s: %s", name, r.code, r.text)
	}
	return err
}

func (d *demo) guarded() error {
	asked, err := d.call(d.till, "pay", refundAcme, "")
	if err != nil {
		return err
	}
	if asked.code != counterfoil.ApprovalRequired {
		d.tell("A refund needs one person", outcome{tried: "till/pay " + refundAcme, want: counterfoil.ApprovalRequired, got: asked.code, answered: asked.text, why: "class refund is guarded"})
		return nil
	}
	if err := d.yes("bo", asked.approval); err != nil {
		return err
	}
	r, err := d.call(d.till, "pay", refundAcme, "")
	if err != nil {
		return err
	}
	return d.tellPay("A refund needs one person", "till/pay "+refundAcme+", refused with approval_required; bo says yes; the same call again", r, allowed, 2,
		"class refund is guarded: one person is enough; an equal call finds its approval without naming it")
}

func (d *demo) denied() error {
	asked, err := d.call(d.agent, "pay", payInitech, "")
	if err != nil {
		return err
	}
	if asked.approval != "" {
		r, err := d.people["cy"].decide(d.ctx, asked.approval, counterfoil.DecisionDeny, "this invoice is not ours")
		if err != nil || r.code != allowed {
			return errors.Join(err, fmt.Errorf("cy said no: %s: %s", r.code, r.text))
		}
	}
	r, err := d.call(d.agent, "pay", payInitech, "")
	if err != nil {
		return err
	}
	return d.tellPay("Somebody says no", "bank/pay "+payInitech+"; cy says no and why; the agent repeats the call", r, counterfoil.ApprovalDenied, 2,
		"one no ends it, and the agent is told the reason in a short form")
}

// stay leaves everything running and a payout waiting for whoever watches, who is
// dan: bo has signed it already.
func (d *demo) stay() error {
	const args = `{"to":"globex","amount":250,"currency":"EUR"}`
	r, err := d.call(d.agent, "pay", args, "")
	if err != nil {
		return err
	}
	if r.approval == "" {
		return fmt.Errorf("the payout did not ask for an approval: %s: %s", r.code, r.text)
	}
	if err := d.yes("bo", r.approval); err != nil {
		return err
	}
	a := d.app
	a.note(`
A payout waits for you: 250 EUR to globex. bo has said yes, and it takes two. You are dan.
  1. make your passkey    %s/enrol#%s
  2. read and decide      %s/approvals/%s

Also there, until you press Ctrl-C:
  the console             %s
  issuer and gateway      %s
  the admin's commands    counterfoil approval list --data %s
  the agent's key         %s`,
		d.daemon.ManagementURL(), d.codes["dan"], d.daemon.ManagementURL(), r.approval,
		d.daemon.ManagementURL(), d.daemon.PublicURL(), d.daemon.Data(), d.keyFile())

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		waiter := agent.NewWaiter(agent.WaitConfig{Transport: d.agent, Wait: time.Hour})
		result, err := callTool(d.ctx, waiter, d.bankURL(), "pay", args)
		switch {
		case errors.Is(err, context.Canceled) || d.ctx.Err() != nil:
		case err != nil:
			a.note("\nThe agent's call failed: %v", err)
		case refusalOf(result) != nil:
			a.note("\nThe agent was told: %v", refusalOf(result))
		default:
			a.note("\nYou said yes: the agent repeated its call, and the bank paid.")
		}
	}()
	<-d.ctx.Done()
	<-ended
	return nil
}
