-- This moment, by the clock of the bus.
select replace(:now, ' ', 'T') || 'Z';
