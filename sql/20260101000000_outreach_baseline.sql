-- The tables as Prisma made them.

CREATE TABLE "OutreachSequence" (
    "id" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,
    "name" TEXT NOT NULL,
    "status" TEXT NOT NULL,
    "metadata" JSONB,

    CONSTRAINT "OutreachSequence_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "OutreachLog" (
    "id" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,
    "channel" TEXT NOT NULL,
    "status" TEXT NOT NULL,
    "subject" TEXT,
    "bodyText" TEXT,
    "bodyHtml" TEXT,
    "sentAt" TIMESTAMP(3),
    "metadata" JSONB,

    CONSTRAINT "OutreachLog_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "OutreachStep" (
    "id" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,
    "stepOrder" INTEGER NOT NULL,
    "subject" TEXT,
    "bodyText" TEXT,
    "bodyHtml" TEXT,
    "plannedAt" TIMESTAMP(3),
    "sentAt" TIMESTAMP(3),
    "status" TEXT NOT NULL,
    "metadata" JSONB,
    "sequenceId" TEXT NOT NULL,
    "outreachLogId" TEXT,

    CONSTRAINT "OutreachStep_pkey" PRIMARY KEY ("id")
);

CREATE UNIQUE INDEX "OutreachStep_sequenceId_stepOrder_key" ON "OutreachStep"("sequenceId", "stepOrder");
CREATE INDEX "OutreachStep_outreachLogId_idx" ON "OutreachStep"("outreachLogId");

ALTER TABLE "OutreachStep" ADD CONSTRAINT "OutreachStep_sequenceId_fkey"
    FOREIGN KEY ("sequenceId") REFERENCES "OutreachSequence"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "OutreachStep" ADD CONSTRAINT "OutreachStep_outreachLogId_fkey"
    FOREIGN KEY ("outreachLogId") REFERENCES "OutreachLog"("id") ON DELETE SET NULL ON UPDATE CASCADE;
