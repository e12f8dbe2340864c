package store

import (
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// A statement names a text of the dialect.
type statement int

const (
	begin statement = iota
	commit
	rollback
	savepoint
	rollbackTo
	release

	readHead
	insertSegment
	insertPayload
	putMeta
	getMeta
	nextRevision

	putDocument
	deleteDocument
	readDocuments

	insertAgent
	agentStatus
	suspendAgent
	resumeAgent
	offboardAgent
	voidTokens
	readAgents

	insertInstance
	endInstance
	suspectInstance
	showKey
	releaseInstance
	countQuarantined
	instanceStatus
	endInstancesOfAgent
	keptInstancesOfAgent
	readInstances

	insertKey
	keyOwner
	endKeysOfInstance
	endKeysOfAgent
	liveKeysOfAgent
	countProofKeys
	readKeys

	useAssertion
	keepAssertion
	useAssertionAlone
	findAssertion
	olderAssertion
	purgeAssertions
	tokensOfAgent
	tokensOfInstance
	tokensOfTask
	tokenRow
	purgeCodes
	putCode
	spendCode
	dropCode
	dropCodesOf

	insertTask
	insertTaskLimit
	taskRow
	openTasks
	countOpenTasks
	openTasksBelow
	openTasksOfAgent
	closeTask
	countCall
	countLimit

	outcomeOf
	putOutcome
	endOutcome
	dropOutcome
	trimOutcomes
	dropResults
	keyOutcome
	purgeOutcomes

	putDead
	insertDead
	readDead
	findDead
	purgeDead
	readStanding
	putStanding
	restoreStanding
	standingOf

	instanceRowOf
	keyRowOf
	endKey
	ageKeys
	agedKeys
	endAgedKeys
	liveKeysOfInstance
	rotateInstance
	forgetOldKey
	agentsOfOwner
	documentOf

	insertStream
	updateStream
	deleteStream
	dropStreamOf
	readStreams
	streamRow
	ackStream

	findSignal
	insertSignal
	purgeSignals

	putCredential
	deleteCredential

	putSigningKey
	readSigningKeys

	putPin
	putFirstPin
	dropPins
	dropFirstPin
	readPins

	readApproval
	openApprovalOfCall
	keyUses
	countPending
	insertApproval
	moveApproval
	approveApproval
	spendApproval
	finishApproval
	eraseApproval
	insertSignature
	openOfAgent
	openOfInstance
	openOfToken
	openOfKey
	openOfSigner
	openOfPasskey
	openOfTask
	openOfResource

	sumTakings
	insertTaking

	insertPasskey
	readPasskey
	readPasskeysOf
	anyPasskey
	usePasskey
	endPasskey
	releasePasskey
	putPersonCode
	readPersonCode
	spendPersonCode
	dropPersonCode
	dropPersonCodeByHash
	purgePersonCodes
	findDocument

	insertProposal
	readProposal
	readProposals
	deleteProposal

	fillProbe
	freeProbe

	checkpointWAL

	statements // their number
)

var sqliteTexts = [statements]string{
	begin:      `BEGIN IMMEDIATE`,
	commit:     `COMMIT`,
	rollback:   `ROLLBACK`,
	savepoint:  `SAVEPOINT decision`,
	rollbackTo: `ROLLBACK TO decision`,
	release:    `RELEASE decision`,

	readHead:      `SELECT first + count FROM segments ORDER BY first DESC LIMIT 1`,
	insertSegment: `INSERT INTO segments (first, count, hashes, data) VALUES (?, ?, ?, ?)`,
	insertPayload: `INSERT INTO payloads (entry, salt, payload) VALUES (?, ?, ?)`,
	putMeta:       `INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value`,
	getMeta:       `SELECT value FROM meta WHERE name = ?`,
	nextRevision:  `UPDATE meta SET value = ?2 WHERE name = 'revision' AND value = ?1`,

	putDocument:    `INSERT INTO documents (kind, name, body) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body`,
	deleteDocument: `DELETE FROM documents WHERE kind = ? AND name = ?`,
	readDocuments:  `SELECT kind, name, body FROM documents`,

	insertAgent:  `INSERT INTO agents (name, status, epoch) VALUES (?, 'active', ?) ON CONFLICT DO NOTHING`,
	agentStatus:  `SELECT status, epoch FROM agents WHERE name = ?`,
	suspendAgent: `UPDATE agents SET status = 'suspended', epoch = max(epoch + 1, ?2) WHERE name = ?1 AND status = 'active'`,
	// An active agent is resumed for the instances that are released with it: ?3.
	resumeAgent: `UPDATE agents SET status = 'active', epoch = max(epoch + 1, ?2)
		WHERE name = ?1 AND (status = 'suspended' OR status = 'active' AND ?3)`,
	offboardAgent: `UPDATE agents SET status = 'offboarded', epoch = max(epoch + 1, ?2)
		WHERE name = ?1 AND status <> 'offboarded'`,
	voidTokens: `UPDATE agents SET epoch = max(epoch + 1, ?2) WHERE name = ?1 AND status <> 'offboarded'`,
	readAgents: `SELECT name, status, epoch FROM agents`,

	insertInstance: `INSERT INTO instances (id, agent, jkt, jwk, alg, status, enrolled, how)
		VALUES (?, ?, ?, ?, ?, 'active', ?, ?) ON CONFLICT DO NOTHING`,
	endInstance: `UPDATE instances SET status = 'ended'` + noOldKey + ` WHERE id = ?1 AND agent = ?2 AND status <> 'ended'`,
	// One statement decides that it was not suspected since, so that the same
	// sightings, read back by a start, are one suspicion. A foreign use (?6) that was
	// recorded before is one of them.
	suspectInstance: `UPDATE instances SET suspected = max(suspected, ?3), status = CASE WHEN ?5 THEN 'quarantined' ELSE status END
		WHERE id = ?1 AND agent = ?2 AND status = 'active' AND suspected < ?4 AND (NOT ?6 OR shown < ?4)`,
	showKey: `UPDATE instances SET shown = max(shown, ?3) WHERE id = ?1 AND agent = ?2 AND status = 'active' AND shown < ?4`,
	releaseInstance: `UPDATE instances SET status = 'active', suspected = max(suspected, ?3), shown = max(shown, ?3)
		WHERE id = ?1 AND agent = ?2 AND status = 'quarantined'`,
	countQuarantined:     `SELECT count(*) FROM instances WHERE agent = ? AND status = 'quarantined'`,
	instanceStatus:       `SELECT status FROM instances WHERE id = ? AND agent = ?`,
	endInstancesOfAgent:  `UPDATE instances SET status = 'ended'` + noOldKey + ` WHERE agent = ?`,
	keptInstancesOfAgent: `SELECT id FROM instances WHERE agent = ? AND status <> 'ended' ORDER BY id`,
	readInstances:        `SELECT id, agent, jkt, jwk, alg, status, enrolled, how, suspected, shown, old_jkt, old_jwk, old_alg, old_until FROM instances`,

	insertKey:         `INSERT INTO keys (jkt, agent, instance, registered, live) VALUES (?, ?, ?, ?, 1) ON CONFLICT DO NOTHING`,
	keyOwner:          `SELECT agent, instance, live, until FROM keys WHERE jkt = ?`,
	endKeysOfInstance: `UPDATE keys SET live = 0 WHERE instance = ?`,
	endKeysOfAgent:    `UPDATE keys SET live = 0 WHERE agent = ?`,
	liveKeysOfAgent:   `SELECT jkt FROM keys WHERE agent = ? AND live = 1 ORDER BY jkt`,
	countProofKeys:    `SELECT count(*) FROM keys WHERE instance = ? AND registered = 0 AND live = 1`,
	readKeys:          `SELECT jkt, agent, instance, registered, live, until FROM keys`,

	// One statement decides it all: that the id is new, that whoever uses it is live at
	// that epoch and by a key that is taken (?11), that the token's task is open and its
	// resource in force.
	useAssertion: `INSERT INTO assertions (agent, id, until, token, instance, task, epoch, expires)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (
			SELECT 1 FROM agents a JOIN instances i ON i.agent = a.name
			WHERE a.name = ?1 AND a.status = 'active' AND a.epoch = ?7 AND i.id = ?5 AND i.status = 'active')
		AND NOT EXISTS (SELECT 1 FROM assertions WHERE agent = '' AND id = ?2)
		AND (?6 = '' OR EXISTS (SELECT 1 FROM tasks WHERE id = ?6 AND agent = ?1 AND state = 'open' AND deadline > ?9))
		AND NOT EXISTS (SELECT 1 FROM standing WHERE kind = 'resource' AND name = ?10 AND status <> 'active')
		AND EXISTS (SELECT 1 FROM keys WHERE jkt = ?11 AND instance = ?5 AND live = 1 AND (until = 0 OR until > ?9))
		ON CONFLICT DO NOTHING`,
	keepAssertion: `INSERT INTO assertions (agent, id, until, token, instance, task, epoch, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`,
	useAssertionAlone: `INSERT INTO assertions (agent, id, until, token, instance, task, epoch, expires)
		SELECT ?1, ?2, ?3, '', '', '', 0, 0 WHERE NOT EXISTS (SELECT 1 FROM assertions WHERE agent = '' AND id = ?2)
		ON CONFLICT DO NOTHING`,
	findAssertion:   `SELECT 1 FROM assertions WHERE agent IN (?1, '') AND id = ?2`,
	olderAssertion:  `SELECT 1 FROM assertions WHERE agent = '' LIMIT 1`,
	purgeAssertions: `DELETE FROM assertions WHERE until < ?`,
	// Those of an older epoch were void before.
	tokensOfAgent: `SELECT token FROM assertions WHERE agent = ?1 AND epoch = ?2 AND expires > ?3` + notDead,
	tokensOfInstance: `SELECT token FROM assertions WHERE agent = ?1 AND instance = ?2 AND expires > ?3
		AND epoch = (SELECT epoch FROM agents WHERE name = ?1)` + notDead,
	tokensOfTask: `SELECT token FROM assertions WHERE task = ?1 AND task <> '' AND expires > ?2
		AND epoch = (SELECT epoch FROM agents WHERE name = assertions.agent)` + notDead,
	tokenRow: `SELECT agent, expires FROM assertions WHERE token = ?1 AND token <> ''`,

	purgeCodes:  `DELETE FROM codes WHERE expires < ?`,
	putCode:     `INSERT INTO codes (hash, agent, expires) VALUES (?, ?, ?)`,
	spendCode:   `DELETE FROM codes WHERE hash = ?1 AND agent = ?2 AND expires > ?3`,
	dropCode:    `DELETE FROM codes WHERE hash = ?`,
	dropCodesOf: `DELETE FROM codes WHERE agent = ?`,

	insertTask: `INSERT INTO tasks (id, agent, opener, instance, parent, purpose, tools, opened, deadline, max_calls, calls, state, closed, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 'open', 0, '') ON CONFLICT DO NOTHING`,
	insertTaskLimit: `INSERT INTO task_limits (task, n, class, sum, max, used) VALUES (?, ?, ?, ?, ?, 0)`,
	taskRow:         tasksWithLimits(`id = ?`, ``),
	openTasks:       tasksWithLimits(`state = 'open'`, ``),
	countOpenTasks:  `SELECT count(*) FROM tasks WHERE agent = ? AND state = 'open'`,
	// What is below a task is closed with it; 1: the task itself.
	openTasksBelow: `WITH RECURSIVE below (id, agent, root) AS (
			SELECT id, agent, 1 FROM tasks WHERE id = ?1 AND state = 'open'
			UNION SELECT t.id, t.agent, 0 FROM below b CROSS JOIN tasks t ON t.parent = b.id AND t.parent <> '' WHERE t.state = 'open')
		SELECT id, agent, root FROM below`,
	openTasksOfAgent: `WITH RECURSIVE below (id, agent) AS (
			SELECT id, agent FROM tasks WHERE agent = ?1 AND state = 'open'
			UNION SELECT id, agent FROM tasks WHERE opener = ?1 AND state = 'open' AND opener <> agent
			UNION SELECT t.id, t.agent FROM below b CROSS JOIN tasks t ON t.parent = b.id AND t.parent <> '' WHERE t.state = 'open')
		SELECT id, agent, 0 FROM below`,
	closeTask: `UPDATE tasks SET state = ?2, reason = ?3, closed = ?4 WHERE id = ?1 AND state = 'open'`,
	countCall: `UPDATE tasks SET calls = calls + 1
		WHERE id = ?1 AND state = 'open' AND deadline > ?2 AND (max_calls = 0 OR calls < max_calls)`,
	countLimit: `UPDATE task_limits SET used = used + ?3 WHERE task = ?1 AND n = ?2 AND used <= max - ?3`,

	outcomeOf: `SELECT entry, digest, done, result FROM outcomes WHERE agent = ? AND task = ? AND key = ? AND at > ?`,
	putOutcome: `INSERT INTO outcomes (entry, agent, task, key, digest, at, done) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)
		ON CONFLICT (agent, task, key) DO UPDATE SET entry = ?1, digest = ?5, at = ?6, done = 0, result = NULL`,
	// Of a task that closed meanwhile nothing is kept.
	endOutcome: `UPDATE outcomes SET done = 1, result = CASE
			WHEN task = '' OR EXISTS (SELECT 1 FROM tasks WHERE id = outcomes.task AND state = 'open') THEN ?2 END
		WHERE entry = ?1`,
	dropOutcome: `DELETE FROM outcomes WHERE entry = ? AND done = 0`,
	// Entries count up, so the newest have the largest.
	trimOutcomes: `UPDATE outcomes SET result = NULL WHERE agent = ?1 AND result IS NOT NULL
		AND entry <= (SELECT entry FROM outcomes WHERE agent = ?1 AND result IS NOT NULL ORDER BY entry DESC LIMIT 1 OFFSET ?2)`,
	dropResults:   `UPDATE outcomes SET result = NULL WHERE agent = ? AND task = ? AND result IS NOT NULL`,
	keyOutcome:    `SELECT digest FROM outcomes WHERE agent = ? AND task = ? AND key = ? AND at > ?`,
	purgeOutcomes: `DELETE FROM outcomes WHERE at < ?`,

	// What is dead longer, or more of it, stays so.
	putDead: `INSERT INTO dead (kind, id, until, before) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until),
		before = CASE WHEN before = 0 OR excluded.before = 0 THEN 0 ELSE max(before, excluded.before) END`,
	insertDead:   `INSERT INTO dead (kind, id, until, before) VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING`,
	readDead:     `SELECT kind, id, until, before FROM dead`,
	findDead:     `SELECT 1 FROM dead WHERE kind = ? AND id = ?`,
	purgeDead:    `DELETE FROM dead WHERE until < ? RETURNING kind, id`,
	readStanding: `SELECT kind, name, status, before FROM standing`,
	putStanding: `INSERT INTO standing (kind, name, status, before) VALUES (?1, ?2, 'suspended', ?3)
		ON CONFLICT DO UPDATE SET status = 'suspended', before = max(before, ?3) WHERE status <> 'suspended'`,
	restoreStanding: `UPDATE standing SET status = 'active' WHERE kind = ? AND name = ? AND status = 'suspended'`,
	standingOf:      `SELECT status FROM standing WHERE kind = ? AND name = ?`,

	instanceRowOf:      `SELECT agent, status, jkt, how, old_jkt, old_until FROM instances WHERE id = ?`,
	keyRowOf:           `SELECT agent, instance, registered, live FROM keys WHERE jkt = ?`,
	endKey:             `UPDATE keys SET live = 0 WHERE jkt = ? AND live = 1`,
	ageKeys:            `UPDATE keys SET until = ?2 WHERE instance = ?1 AND live = 1 AND until = 0`,
	agedKeys:           `SELECT jkt FROM keys WHERE instance = ? AND live = 1 AND until > 0 ORDER BY registered DESC, jkt`,
	endAgedKeys:        `UPDATE keys SET live = 0 WHERE instance = ? AND live = 1 AND until > 0`,
	liveKeysOfInstance: `SELECT jkt FROM keys WHERE instance = ? AND live = 1 ORDER BY jkt`,
	rotateInstance: `UPDATE instances SET jkt = ?3, jwk = ?4, alg = ?5, old_jkt = CASE WHEN ?6 > 0 THEN jkt ELSE '' END,
			old_jwk = CASE WHEN ?6 > 0 THEN jwk ELSE '' END, old_alg = CASE WHEN ?6 > 0 THEN alg ELSE '' END, old_until = ?6
		WHERE id = ?1 AND jkt = ?2 AND status = 'active'`,
	forgetOldKey:  `UPDATE instances SET jkt = jkt` + noOldKey + ` WHERE id = ?1 AND old_jkt = ?2`,
	agentsOfOwner: `SELECT d.name, a.status FROM documents d JOIN agents a ON a.name = d.name WHERE d.kind = 'Agent' AND json_extract(d.body, '$.owner') = ? ORDER BY d.name`,
	documentOf:    `SELECT body FROM documents WHERE kind = ? AND name = ?`,

	insertStream: `INSERT INTO streams (id, agent, body, cursor, acked) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	updateStream: `UPDATE streams SET body = ?3, cursor = max(cursor, ?4) WHERE id = ?1 AND body = ?2`,
	deleteStream: `DELETE FROM streams WHERE id = ?`,
	dropStreamOf: `DELETE FROM streams WHERE agent = ?`,
	readStreams:  `SELECT body, cursor, acked FROM streams ORDER BY id`,
	streamRow:    `SELECT cursor, acked FROM streams WHERE id = ?`,
	ackStream:    `UPDATE streams SET cursor = ?2, acked = ?3 WHERE id = ?1`,

	putCredential: `INSERT INTO credentials (name, sealed, stored, actor) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT DO UPDATE SET sealed = excluded.sealed, stored = excluded.stored, actor = excluded.actor`,
	deleteCredential: `DELETE FROM credentials WHERE name = ?`,

	findSignal:   `SELECT 1 FROM signals WHERE transmitter = ? AND id = ?`,
	insertSignal: `INSERT INTO signals (transmitter, id, until) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
	purgeSignals: `DELETE FROM signals WHERE until <= ?`,

	putSigningKey: `INSERT INTO signing_keys (kid, purpose, alg, state, jwk, sealed, created, active, retired)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET state = excluded.state, sealed = excluded.sealed,
			active = excluded.active, retired = excluded.retired
		WHERE purpose = excluded.purpose AND alg = excluded.alg AND jwk = excluded.jwk`,
	readSigningKeys: `SELECT kid, purpose, alg, state, jwk, sealed, created, active, retired FROM signing_keys ORDER BY created, kid`,

	putPin: `INSERT INTO pins (resource, tool, digest, how) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET digest = excluded.digest, how = excluded.how`,
	putFirstPin:  `INSERT INTO pins (resource, tool, digest, how) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	dropPins:     `DELETE FROM pins WHERE resource = ?`,
	dropFirstPin: `DELETE FROM pins WHERE resource = ? AND tool = ? AND how = ?`,
	readPins:     `SELECT resource, tool, digest, how FROM pins`,

	readApproval:       approvalRows(wholeColumns, `WHERE id = ?`, ``),
	openApprovalOfCall: approvalRows(wholeColumns, openCall, `ORDER BY seq DESC LIMIT 1`),
	keyUses:            `SELECT state, call_digest FROM approvals WHERE agent = ? AND task = ? AND key = ? AND key <> '' AND kind = 'call'`,
	// Those that are pending, and those that ended without anybody's decision and still
	// hold their calls.
	countPending: `SELECT count(CASE WHEN state = 'pending' AND expires > ?2 THEN 1 END), count(CASE WHEN (state <> 'pending' OR expires <= ?2) AND use_until = 0 THEN 1 END)
		FROM approvals WHERE erased = 0 AND state IN ('pending', 'expired', 'cancelled', 'superseded', 'revoked') AND agent = ?1`,
	insertApproval: `INSERT INTO approvals (id, state, kind, agent, instance, task, key, held, created, expires, use_until, closed, decided, reason,
			body, erased, call_digest, fields, statement, rendering, call)
		VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '', ?, 0, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	// Of an approval that ran, closed says when it was spent.
	moveApproval: `UPDATE approvals SET state = ?3, reason = ?4, closed = CASE WHEN closed = 0 THEN ?5 ELSE closed END
		WHERE id = ?1 AND state = ?2`,
	approveApproval: `UPDATE approvals SET state = 'approved', use_until = ?2 WHERE id = ?1 AND state = 'pending'`,
	spendApproval:   `UPDATE approvals SET state = 'spent', decided = ?2, closed = ?3 WHERE id = ?1 AND state = 'approved'`,
	finishApproval:  `UPDATE approvals SET state = ?3, result = ?4 WHERE id = ?1 AND state = 'spent' AND decided = ?2`,
	eraseApproval: `UPDATE approvals SET erased = 1, call_digest = '', fields = NULL, statement = NULL, rendering = NULL, call = NULL, result = NULL
		WHERE id = ? AND state NOT IN ` + notErasable,
	insertSignature: `INSERT INTO signatures (approval, n, person, mailbox, passkey, decision, reason, member, at, record, digest)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
	openOfAgent:    `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? ORDER BY seq`,
	openOfInstance: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? AND instance = ? ORDER BY seq`,
	// A call that is held is made without its token; any other is repeated with one that
	// is good then.
	openOfToken: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? AND held = 1
		AND body ->> '$.caller.TokenID' = ? ORDER BY seq`,
	openOfKey: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? AND instance = ?
		AND body ->> '$.caller.JKT' = ? ORDER BY seq`,
	openOfSigner: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved')
		AND id IN (SELECT approval FROM signatures WHERE person = ?) ORDER BY seq`,
	openOfPasskey: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved')
		AND id IN (SELECT approval FROM signatures WHERE passkey = ?) ORDER BY seq`,
	openOfTask: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? AND task = ? ORDER BY seq`,
	openOfResource: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND kind = 'call'
		AND substr(json_extract(body, '$.tool'), 1, length(?1) + 1) = ?1 || '/' ORDER BY seq`,

	// In two halves, so that no sum overflows.
	sumTakings: `SELECT ifnull(sum(amount >> 32), 0), ifnull(sum(amount & 4294967295), 0) FROM takings
		WHERE class = ? AND field = ? AND agent = ? AND at > ?`,
	insertTaking: `INSERT INTO takings (class, field, agent, at, entry, amount) VALUES (?, ?, ?, ?, ?, ?)`,

	insertPasskey: `INSERT INTO passkeys (id, person, public_key, handle, aaguid, attested, sign_count, eligible, backed_up, transports,
			enrolled, usable_from, used, how, entry, status)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 'active') ON CONFLICT DO NOTHING`,
	readPasskey:    `SELECT ` + passkeyColumns + ` FROM passkeys WHERE id = ?`,
	readPasskeysOf: `SELECT ` + passkeyColumns + ` FROM passkeys WHERE person = ? ORDER BY enrolled, entry`,
	anyPasskey:     `SELECT 1 FROM passkeys LIMIT 1`,
	// WebAuthn Level 3, Section 7.2, step 22: a count that is used only rises.
	usePasskey: `UPDATE passkeys SET sign_count = ?2, backed_up = ?3, used = max(used, ?4)
		WHERE id = ?1 AND status = 'active' AND (sign_count < ?2 OR sign_count = 0 AND ?2 = 0)`,
	endPasskey:           `UPDATE passkeys SET status = 'ended' WHERE id = ? AND status = 'active'`,
	releasePasskey:       `UPDATE passkeys SET usable_from = min(usable_from, ?2) WHERE id = ?1 AND status = 'active'`,
	putPersonCode:        `INSERT INTO person_codes (person, hash, how, expires) VALUES (?, ?, ?, ?)`,
	readPersonCode:       `SELECT person, how, expires FROM person_codes WHERE hash = ? AND expires > ?`,
	spendPersonCode:      `DELETE FROM person_codes WHERE hash = ?1 AND person = ?2 AND how = ?3 AND expires > ?4`,
	dropPersonCodeByHash: `DELETE FROM person_codes WHERE hash = ?`,
	dropPersonCode:       `DELETE FROM person_codes WHERE person = ?`,
	purgePersonCodes:     `DELETE FROM person_codes WHERE expires <= ?`,
	findDocument:         `SELECT 1 FROM documents WHERE kind = ? AND name = ?`,

	insertProposal: `INSERT INTO proposals (id, documents, digest, actor, approval, created, effective) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	readProposal:   `SELECT approval, effective FROM proposals WHERE id = ?`,
	readProposals:  `SELECT id, documents, digest, actor, approval, created, effective FROM proposals ORDER BY created, id`,
	deleteProposal: `DELETE FROM proposals WHERE id = ?`,

	fillProbe: `INSERT INTO probe (id, room) VALUES (1, zeroblob(65536)) ON CONFLICT DO UPDATE SET room = excluded.room`,
	freeProbe: `DELETE FROM probe`,

	checkpointWAL: `PRAGMA wal_checkpoint(PASSIVE)`,
}

// Pieces of the texts above.
const (
	// An approval that an equal call attaches to.
	openCall = `WHERE kind = ? AND agent = ? AND task = ? AND call_digest = ? AND key = ?
		AND (state = 'pending' AND expires > ? OR state = 'approved' AND use_until > ?)`

	// What is open is still shown, what runs or is not known to have run is looked at.
	notErasable = `('pending', 'approved', 'spent', 'indeterminate')`

	// What an approval shows in a list, and all that it holds. They have the same names:
	// what an agent may make large is NULL in the first, and is not read from the disk.
	briefColumns = `statement, rendering, ` +
		`CASE WHEN kind <> 'call' THEN fields END AS fields, CASE WHEN kind <> 'call' THEN call END AS call, NULL AS result`
	wholeColumns = `statement, rendering, fields, call, result`

	noOldKey = `, old_jkt = '', old_jwk = '', old_alg = '', old_until = 0`

	notDead = ` AND NOT EXISTS (SELECT 1 FROM dead WHERE kind = 'token' AND id = assertions.token) ORDER BY token`

	taskColumns = `id, agent, opener, instance, parent, purpose, tools, opened, deadline, max_calls, calls, state, closed, reason`

	passkeyColumns = `id, person, public_key, handle, aaguid, attested, sign_count, eligible, backed_up, transports,
		enrolled, usable_from, used, how, entry, status`
)

// approvalRows is the text that reads approvals, each with its signatures: one
// statement, so that both are of one moment.
func approvalRows(columns, where, order string) string {
	return `SELECT a.id, a.state, a.kind, a.key, a.held, a.created, a.expires, a.use_until, a.closed, a.decided, a.reason, a.body,
			a.call_digest, a.fields, a.statement, a.rendering, a.call, a.result,
			s.n, s.person, s.mailbox, s.passkey, s.decision, s.reason, s.member, s.at, s.record, s.digest
		FROM (SELECT seq, id, state, kind, key, held, created, expires, use_until, closed, decided, reason, body, call_digest, ` + columns + `
			FROM approvals ` + where + ` ` + order + `) a LEFT JOIN signatures s ON s.approval = a.id
		ORDER BY a.seq DESC, s.n`
}

// approvalFilter is the text that reads the approvals that a filter chooses, and its
// arguments. Only what is asked for is in the text, so that an index can serve it.
func approvalFilter(f counterfoil.ApprovalFilter) (text string, args []any) {
	where := []string{"1"}
	want := func(text string, values ...any) { where, args = append(where, text), append(args, values...) }
	if len(f.States) > 0 {
		marks := make([]any, len(f.States))
		for i, s := range f.States {
			marks[i] = string(s)
		}
		want(`state IN (?`+strings.Repeat(`, ?`, len(marks)-1)+`)`, marks...)
	}
	for _, m := range []struct{ column, value string }{{"kind", f.Kind}, {"agent", f.Agent}, {"call_digest", f.CallDigest}, {"key", f.Key}} {
		if m.value != "" {
			want(m.column+` = ?`, m.value)
		}
	}
	if f.Task != nil {
		want(`task = ?`, *f.Task)
	}
	if f.Signer != "" {
		want(`id IN (SELECT approval FROM signatures WHERE person = ?)`, f.Signer)
	}
	if f.Held {
		want(`held = 1`)
	}
	if f.Erasable {
		// SQLite would rather read all that ever was, which is in the order that is asked for.
		want(`seq IN (SELECT seq FROM approvals INDEXED BY approvals_kept WHERE erased = 0 AND state NOT IN ` + notErasable + `)`)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	// Not a parameter: SQLite plans by its value, and so would plan anew once it is
	// bound.
	columns := wholeColumns
	if f.Brief {
		columns = briefColumns
	}
	return approvalRows(columns, `WHERE `+strings.Join(where, ` AND `), `ORDER BY seq DESC LIMIT `+strconv.Itoa(limit)), args
}

// taskFilter is the text that reads the tasks that a filter chooses, newest first, each
// with its limits, and its arguments.
func taskFilter(f counterfoil.TaskFilter) (text string, args []any) {
	where := []string{"1"}
	for _, m := range []struct{ column, value string }{{"agent", f.Agent}, {"opener", f.Opener}, {"state", string(f.State)}, {"parent", f.Parent}} {
		if m.value != "" {
			where, args = append(where, m.column+` = ?`), append(args, m.value)
		}
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	return tasksWithLimits(strings.Join(where, ` AND `), `ORDER BY opened DESC, id DESC LIMIT `+strconv.Itoa(limit)), args
}

func tasksWithLimits(where, order string) string {
	return `SELECT t.*, l.class, l.sum, l.max, l.used FROM (SELECT ` + taskColumns + ` FROM tasks WHERE ` + where + ` ` + order + `) t
		LEFT JOIN task_limits l ON l.task = t.id ORDER BY t.opened DESC, t.id DESC, l.n`
}

// Texts of the reading connections.
const (
	textSegmentOf     = `SELECT first, count, hashes FROM segments WHERE first <= ? ORDER BY first DESC LIMIT 1`
	textDataOf        = `SELECT first, count, data FROM segments WHERE first <= ? ORDER BY first DESC LIMIT 1`
	textDataFrom      = `SELECT first, count, data FROM segments WHERE first >= ? AND first < ? ORDER BY first LIMIT 64`
	textDataBefore    = `SELECT first, count, data FROM segments WHERE first < ? ORDER BY first DESC LIMIT 64`
	textPayload       = `SELECT salt, payload FROM payloads WHERE entry = ?`
	applicationID     = 0x4354464c // "CTFL"
	quickCheckCeiling = 256 << 20
)
