-- An instance ends; only an agent is offboarded, which is final for its name.
UPDATE instances SET status = 'ended' WHERE status = 'offboarded';
