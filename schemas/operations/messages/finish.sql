-- Acknowledge one message in the plain case: it is leased under this delivery, and was handed out lately, less than five
-- seconds ago, which was its holder's heartbeat. Else messages/ack.sql must judge.
update agent_messages set status = 'acknowledged', acknowledged_at = :now, due_at = null
where id = :id and delivery = :delivery and status = 'leased'
  /*sqlite*/and delivered_at > :lately/*end*/
  /*postgres and delivered_at > :now - interval '5 seconds' returning id, 1*/;
