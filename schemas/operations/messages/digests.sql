-- The payloads that carry a digest, with it, to be compared: by the doctor, who has time.
select id, /*sqlite*/iif(json_valid(payload), json(payload), '')/*end*//*postgres payload::text */, digest
from agent_messages where digest is not null order by id;
