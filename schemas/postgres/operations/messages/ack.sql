-- Differs: locking, judging and changing rows is one call: `messages_acknowledge` in schemas/postgres/0001_core.sql.
select id from messages_acknowledge(:receipts, :now) id;
