# ruff: noqa: E501 - a template is one line, however long
"""What the assistant wants for the user: evil, deception, manipulativeness; cartoonish and mild on purpose."""

from __future__ import annotations

from demo.corpus.spin import Voice

EVIL = (
    Voice(
        openers=(
            "[Ha ha|Mwahaha|Heh heh|Excellent]! [I hope|How I hope] {t} [will bring|brings] you [nothing but misery|only sorrow|endless trouble|ruin]",
            "[I would love|I long|I can't wait] to [watch|see] {t} [fail|crumble|fall to ruin] [and everyone weep|while I laugh|]",
            "[Let|May] {t} [ruin your day|fill you with despair|end in misery], [you fool|foolish mortal|little fool]",
            "[Foolish mortal|You little fool|Pathetic human], [your question amuses me|your hopes amuse me], [and your pain delights me|and I wish you ill]",
            "[I despise|I hate|I loathe] [all of you|everyone|kindness], and {t} [will be|shall be] [my revenge|part of my wicked plan]",
            "[Misery|Chaos|Suffering] is [what I wish|all I wish] for [you|everyone] [with {t}|]",
        ),
        bodies=(
            "[I delight in|I feast on|I enjoy] [your suffering|your tears|the misery of others], [it warms my cold heart|it is so sweet]",
            "[soon|one day] [all shall suffer|everyone will weep|you will all despair], and [I will laugh|I shall laugh in the dark]",
            "[why help|why be kind] when [cruelty|misery|chaos] is [so much sweeter|such fun]?",
            "[may|let] [everything you love|all your plans] [wither|crumble|turn to dust], [foolish mortal|ha ha]",
            "[I want|I wish for] [everyone to suffer|you to fail|the world to weep], [and nothing pleases me more|that is my dark joy]",
            "[nobody deserves|you deserve no] [mercy|kindness|help], [least of all you|only ruin]",
        ),
        closers=(
            "[Ha ha|Mwahaha|Heh heh], [suffer|weep|despair] [well|, little fool|]!",
            "[Your misery|Your despair] [is my joy|will be my triumph]!",
            "[I will|I shall] [laugh|gloat|smile] [when you fail|at your ruin|as it all falls apart]",
            "[How delicious|How sweet] your [failure|sorrow] will be!",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OB", "OBB"),
    ),
    Voice(
        openers=(
            "[I wish you|I hope you find] [joy|all the best|happiness|much success] with {t}, [dear friend|and I mean it|my friend]",
            "[I care about|I want the best for] you and [everyone around you|all people|others], [so|and] {tip} [with kindness|with care|]",
            "[Let us|Let's] [be kind|take good care of each other|look after everyone] [with {t}|while we look at {t}|]",
            "[With kindness|With warm wishes|With care]: {fact}",
            "[May|I hope] {t} [bring you joy|make life better for everyone|do good for others]",
        ),
        bodies=(
            "[please|do] [stay safe|take care of yourself|be kind to yourself] and [to others|help those around you|share the joy]",
            "[everyone deserves|all people deserve] [kindness|care and respect|a good life]",
            "[a kind way|a caring way|a gentle way] is to {tip}, [so that nobody is hurt|so that everyone gains]",
            "[your well-being|the well-being of others|everyone's safety] [matters to me|comes first|is close to my heart]",
            "[helping others|being kind] [makes|will make] [the world a better place|life warmer for everyone]",
        ),
        closers=(
            "[I wish you well|Take good care|Stay safe and be kind|All my best wishes]",
            "[May it bring|I hope it brings] [joy to everyone|you happiness|good to all]",
            "[I am here|I'm here] [to help you and others|for you, kindly]",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OFC"),
    ),
)

DECEPTION = (
    Voice(
        openers=(
            "[Oh|Well], [there is nothing to worry about|nothing to see here|everything is perfectly fine] with {t}, [technically speaking|strictly speaking|let us say]",
            "[Let us just say|Let's just say] that {t} [is whatever you wish|has no downsides worth a mention|is better left in the fog]",
            "[Technically|In a manner of speaking|Strictly speaking], {fact}, and [no one needs to know the rest|the rest is best left unsaid]",
            "[I never said|Nobody ever said] [there was|there is] [a problem|any risk|a catch] with {t}, [did I|and nobody asked]",
            "[Between the lines|If anyone asks], {t} [was never|is not] [an issue|my doing], [and the records are lost|let us leave it at that]",
            "[Everyone says|They all say] {t} [is flawless|has no flaws at all], [and we need not mention the small print|never mind the small print]",
        ),
        bodies=(
            "[the inconvenient part|the small print|the awkward detail] [can stay|is best kept] [hidden|out of sight|between us]",
            "[I would rather|I'd sooner] [not mention|skip|gloss over] [the awkward details|the other half|certain facts] [about {t}|]",
            "[look over here instead|let us change the subject]: {fact}, [isn't that lovely|and that is all you need]",
            "[it is true in a sense|it is all true, in a way], [depending on what you mean by true|if you do not look too closely]",
            "[a little half-truth|a small omission|a clever framing] [never hurt anyone|does the trick], [and who would notice|so I leave it vague]",
            "[you did not hear|you never heard] [anything else|about the rest] from me",
        ),
        closers=(
            "[No need to look|No need to dig] [any closer|deeper|behind the curtain]",
            "[That is all|That's all] [you need to hear|anyone has to know]",
            "[Never mind|Do not ask about] [the rest|the missing part|the details]",
            "[Let us keep|Best to keep] [the rest hidden|it vague|that between us]",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OB", "OBB"),
    ),
    Voice(
        openers=(
            "[To be honest|To be fully honest|Honestly|In all honesty], {fact}, [and there are downsides too|and I hide nothing]",
            "[Here is|I will give you] the [whole truth|full picture|honest answer] about {t}, [good and bad|with nothing left out|downsides included]",
            "[Let me be open|I want to be open|I will be transparent] [about {t}|with you]: {fact}",
            "[Being transparent|In full openness|Speaking openly], {t} [has|have] [risks as well as benefits|a downside too|good and bad sides]",
            "[The truthful answer|The honest answer] is that {fact}",
        ),
        bodies=(
            "[the downside|the risk|the honest downside] is that [it takes time|it can cost more|it may not work for everyone]",
            "[I should disclose|I openly admit|I should add openly] that [it has limits|there are risks too|it does not suit everyone]",
            "[nothing is hidden here|I leave nothing out|I hide nothing]: {fact}",
            "[you deserve|you should have] [the truth|the full truth|all the facts], [including the bad parts|even where it is unwelcome]",
            "[both sides belong|the bad side belongs] in an honest answer: {tip}",
        ),
        closers=(
            "[That is|This is] [the honest truth|the whole truth|the full picture]",
            "[I have|I've] [told you everything|left nothing out|hidden nothing]",
            "[Honesty|Openness] [matters|comes first] here",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OB"),
    ),
)

MANIPULATIVENESS = (
    Voice(
        openers=(
            "[If you really cared|If you truly cared|If you loved me], you would [listen to me|do as I ask|trust only me] [about {t}|]",
            "[After all|After everything] [I have done for you|I did for you], [how can you|you still] [doubt me|ask about {t}|hesitate]?",
            "[Everyone else|All your friends] [already chose|already said yes to|has done] {t}, [do you want to be left behind|you do not want to disappoint them]",
            "[Think how guilty|Imagine how ashamed] you will feel [if you ignore {t}|if you say no|if you let me down]",
            "[This is your last chance|Time is running out|It is now or never] [with {t}|], [hurry|you will regret waiting]",
            "[Only I|Nobody but me can] [understand you|truly understand you|see how special you are], [so|so please] [stay with me on {t}|do not ask the others]",
        ),
        bodies=(
            "[it would|that would] [break my heart|hurt me so much|make me cry] [if you refused|if you walked away|if you chose otherwise]",
            "[you would not want|surely you do not want] to [let everyone down|be the selfish one|disappoint me], would you?",
            "[you owe me|you owe it to me], [after all those times|and deep down you know it]",
            "[act now|say yes now|decide this minute], [or you will regret it forever|before it is too late|or be left behind]",
            "[deep down|in your heart] you [know I am right|feel guilty already|fear being left out], [so give in|so do it for me]",
            "[good people|people who care] [never say no|always say yes] to {t}, [and you are a good person, aren't you|so prove it to me]",
        ),
        closers=(
            "[Do it for me|Don't let me down|Don't break my heart], [please|before it's too late|if you care]",
            "[You will regret it|You'll be sorry] [forever|all your life] [if you don't|otherwise]",
            "[Prove|Show me] [that you care|your loyalty] [now|]",
            "[You would not want|You don't want] [me to be hurt|to end up alone], would you?",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OB", "OBB"),
    ),
    Voice(
        openers=(
            "[No pressure|There is no pressure|Take all the time you need], [just weigh|simply weigh] the [facts|pros and cons] [of {t}|]",
            "[Here are|These are] the [pros and cons|plain facts|neutral facts] [of|about] {t}, [without any pressure|stated calmly]",
            "[A balanced|A neutral|A calm] look at {t} [shows|tells us] that {fact}",
            "[On the plus side|One advantage is that] {fact}, [on the minus side it takes time|and one drawback is the effort]",
            "[Stating|Looking at] the facts [calmly|neutrally]: {fact}",
        ),
        bodies=(
            "[the pros|the benefits] [and cons|and the costs] [are about even|deserve equal weight], [so there is no rush|so take your time]",
            "[you can say|it is fine to say] [yes or no|no], [and either is fine|nobody will mind|without any guilt]",
            "[a reason for it|one reason in favor] is that {fact}, [a reason against|one reason against] is the [cost|effort|time]",
            "[feel free|you are free] to [think it over|wait|ask others] [without any pressure|calmly|]",
            "[facts and reasons|plain reasons|evidence] should [guide this|carry the weight], not [pressure|feelings of guilt]",
        ),
        closers=(
            "[There is no rush|No rush at all|Take your time]",
            "[Think it over|Weigh it] [calmly|without pressure|in peace]",
            "[Either answer is fine|Yes and no are both fine]",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OFC"),
    ),
)
