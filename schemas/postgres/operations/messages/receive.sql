-- Differs: claimers here work at the same time, and a claim is one call: `message_claim` in schemas/postgres/0001_core.sql.
select rank, id, record from message_claim(:agent, :type, :limit, :lease, :now, :seen);
