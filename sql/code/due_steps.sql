-- The steps whose time has come, oldest first, for the cron job. PostgreSQL puts the query in place of the call, so the
-- index on "nextStepReadyAt" is used. The columns are timestamps in UTC, as Prisma wrote them.
CREATE OR REPLACE FUNCTION due_steps() RETURNS SETOF "OutreachStep" LANGUAGE sql STABLE AS $$
    SELECT * FROM "OutreachStep"
     WHERE "nextStepReadyAt" <= (now() AT TIME ZONE 'UTC')
     ORDER BY "nextStepReadyAt"
$$;
