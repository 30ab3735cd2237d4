-- The next :limit payloads after one id that carry a digest, with it, to be compared: by the doctor, who has time.
select id, /*sqlite*/iif(json_valid(payload), json(payload), '')/*end*//*postgres payload::text */, digest
from agent_messages where id > :after and digest is not null order by id limit :limit;
