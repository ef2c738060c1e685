ALTER TABLE "OutreachStep" ADD COLUMN "scheduledAt" TIMESTAMP(3), -- when the cadence engine scheduled the step
    ADD COLUMN "triggeredBy" TEXT, -- what created the step: manual, cadence, or a trigger source
    ADD COLUMN "nextStepReadyAt" TIMESTAMP(3); -- when the next step should be created
CREATE INDEX "OutreachStep_nextStepReadyAt_idx" ON "OutreachStep"("nextStepReadyAt");
